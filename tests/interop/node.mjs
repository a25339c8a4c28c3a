// A js-libp2p node under the control of a test: JSON commands on stdin, JSON events on stdout.
//
//     node node.mjs [--transport tcp|ws] [--security noise|tls] [--kad]
//
// The protocols and commands of the matrix are described in dialect.py.
import { createHash, randomBytes } from 'node:crypto'
import readline from 'node:readline'
import { parseArgs } from 'node:util'
import { createLibp2p } from 'libp2p'
import { tcp } from '@libp2p/tcp'
import { webSockets } from '@libp2p/websockets'
import { noise } from '@libp2p/noise'
import { tls } from '@libp2p/tls'
import { yamux } from '@libp2p/yamux'
import { identify } from '@libp2p/identify'
import { ping } from '@libp2p/ping'
import { gossipsub } from '@libp2p/gossipsub'
import { kadDHT, passthroughMapper } from '@libp2p/kad-dht'
import { peerIdFromString } from '@libp2p/peer-id'
import { multiaddr } from '@multiformats/multiaddr'
import { CID } from 'multiformats/cid'
import * as Digest from 'multiformats/hashes/digest'

const { values: options } = parseArgs({
  options: {
    transport: { type: 'string', default: 'tcp' },
    security: { type: 'string', default: 'noise' },
    kad: { type: 'boolean', default: false }
  }
})
const transports = { tcp: [tcp(), ''], ws: [webSockets(), '/ws'] }
const securities = { noise, tls }

const ECHO = '/interop/echo/1.0.0'
const DIGEST = '/interop/digest/1.0.0'
const SLOW = '/interop/slow/1.0.0'
const RESETTING = '/interop/resetting/1.0.0'
const WAITING = '/interop/waiting/1.0.0'
const MANY = { maxInboundStreams: 1000, maxOutboundStreams: 1000 } // the default is 32 and 64 a protocol

const ONE = new TextEncoder().encode('1')

const emit = event => process.stdout.write(JSON.stringify(event) + '\n')

// The specification's message id, origin then sequence number: js-libp2p's own default differs,
// and ids that differ make gossip recovery fail without a word.
function messageId (message) {
  const origin = message.from.toMultihash().bytes
  const id = new Uint8Array(origin.length + 8)
  id.set(origin)
  new DataView(id.buffer).setBigUint64(origin.length, message.sequenceNumber)
  return id
}

// Our DHT, with the namespace of values under their own hash.
function dht () {
  return kadDHT({
    protocol: '/atcp/kad/1.0.0',
    clientMode: false,
    peerInfoMapper: passthroughMapper, // loopback addresses are dropped otherwise
    validators: {
      async v (key, value) {
        const wanted = new TextDecoder().decode(key).slice('/v/'.length)
        if (createHash('sha256').update(value).digest('hex') !== wanted) throw new Error('wrong hash')
      }
    },
    selectors: { v: () => 0 }
  })
}

const [transport, suffix] = transports[options.transport]
const node = await createLibp2p({
  addresses: { listen: ['/ip4/127.0.0.1/tcp/0' + suffix] },
  transports: [transport],
  connectionEncrypters: [securities[options.security]()],
  streamMuxers: [yamux()],
  services: {
    identify: identify(),
    ping: ping(),
    pubsub: gossipsub({ msgIdFn: messageId, allowPublishToZeroTopicPeers: true }),
    ...(options.kad ? { dht: dht() } : {})
  }
})

if (options.kad) {
  await node.services.dht.setMode('server', { force: true })
  node.services.dht.routingTable.addEventListener('peer:add', ({ detail }) => emit({ event: 'dht-peer', peer: detail.toString() }))
}

node.addEventListener('peer:identify', ({ detail }) => emit({
  event: 'identify',
  peer: detail.peerId.toString(),
  agent: detail.agentVersion,
  protocols: detail.protocols,
  listen: detail.listenAddrs.map(String),
  observed: String(detail.observedAddr)
}))
node.addEventListener('peer:disconnect', ({ detail }) => emit({ event: 'disconnected', peer: detail.toString() }))
node.services.pubsub.addEventListener('message', ({ detail }) => emit({
  event: 'message',
  topic: detail.topic,
  from: detail.from?.toString(),
  data: Buffer.from(detail.data).toString('base64')
}))
node.services.pubsub.addEventListener('subscription-change', ({ detail }) => emit({
  event: 'subscriptions',
  peer: detail.peerId.toString(),
  topics: detail.subscriptions.filter(change => change.subscribe).map(change => change.topic)
}))

async function sendAll (stream, data) {
  for (let start = 0; start < data.length; start += 65536) {
    if (!stream.send(data.subarray(start, start + 65536))) await stream.onDrain()
  }
}

async function receiveAll (stream) {
  const parts = []
  for await (const part of stream) parts.push(Buffer.from(part.subarray()))
  return Buffer.concat(parts)
}

const digest = data => createHash('sha256').update(data).digest()

function expectEqual (got, expected, what) {
  if (!got.equals(expected)) throw new Error(`${what}: ${got.length} bytes differ from the ${expected.length} expected`)
}

async function expectReset (stream) {
  try {
    const got = await receiveAll(stream)
    throw new Error(`the stream ended after ${got.length} bytes and was not reset`)
  } catch (error) {
    if (error.name !== 'StreamResetError') throw error
  }
}

let released = Promise.withResolvers()

async function answerWithDigest (stream) {
  await sendAll(stream, digest(await receiveAll(stream)))
  await stream.close()
}

await node.handle(ECHO, async stream => {
  for await (const part of stream) {
    if (!stream.send(part)) await stream.onDrain()
  }
  await stream.close()
}, MANY)
await node.handle(DIGEST, answerWithDigest, MANY)
await node.handle(SLOW, async stream => {
  stream.pause()
  await released.promise
  const answering = answerWithDigest(stream)
  stream.resume()
  await answering
}, MANY)
await node.handle(RESETTING, async stream => {
  for await (const _ of stream) break
  stream.abort(new Error('as the protocol says'))
}, MANY)
await node.handle(WAITING, async stream => {
  stream.send(ONE)
  await expectReset(stream)
  emit({ event: 'reset-seen' })
}, MANY)

function open (peer, protocol) {
  return node.getConnections(peerIdFromString(peer))[0].newStream(protocol, MANY)
}

async function exchange (stream, data, expected, what) {
  const receiving = receiveAll(stream)
  await sendAll(stream, data)
  await stream.close()
  expectEqual(await receiving, expected, what)
}

let slow // the exchange with the other end's slow reader: { stream, given, done }

// Content by its multihash in hex: what the DHT goes by, whatever the codec.
const contentId = key => CID.createV1(0x55, Digest.decode(Buffer.from(key, 'hex')))

const commands = {
  async dial ({ addr }) { return { peer: (await node.dial(multiaddr(addr))).remotePeer.toString() } },
  async ping ({ addr, peer }) {
    return { ms: await node.services.ping.ping(addr == null ? peerIdFromString(peer) : multiaddr(addr)) }
  },
  async identify ({ peer }) {
    const seen = await node.services.identify.identify(node.getConnections(peerIdFromString(peer))[0])
    return { agent: seen.agentVersion, protocols: seen.protocols, observed: String(seen.observedAddr) }
  },
  async echo ({ peer, size }) {
    const data = randomBytes(size)
    await exchange(await open(peer, ECHO), data, data, 'echo')
    return {}
  },
  async parallel ({ peer, streams, size }) {
    const opened = await Promise.all(Array.from({ length: streams }, () => open(peer, ECHO)))
    await Promise.all(opened.map(stream => {
      const data = randomBytes(size)
      return exchange(stream, data, data, 'echo on one of many streams')
    }))
    return {}
  },
  async half_close ({ peer, size }) {
    const data = randomBytes(size)
    await exchange(await open(peer, DIGEST), data, digest(data), 'digest')
    return {}
  },
  async be_reset ({ peer }) {
    const stream = await open(peer, RESETTING)
    stream.send(ONE)
    await expectReset(stream)
    return {}
  },
  async reset ({ peer }) {
    const stream = await open(peer, WAITING)
    for await (const _ of stream) break
    stream.abort(new Error('as the command says'))
    return {}
  },
  async slow_start ({ peer, size }) {
    const stream = await open(peer, SLOW)
    const data = randomBytes(size)
    slow = { stream, given: false }
    const receiving = receiveAll(stream)
    const sending = sendAll(stream, data).then(() => { slow.given = true; return stream.close() })
    slow.done = Promise.all([sending, receiving]).then(([_, got]) => expectEqual(got, digest(data), 'digest'))
    slow.done.catch(() => {}) // slow_finish tells
    return {}
  },
  async slow_finish () { await slow.done; return {} },
  // over TLS onDrain returns when the connection has room, though the stream's window is used up
  async slow_sent () { return { sent: slow.given && slow.stream.writeBufferLength === 0 } },
  async release () { released.resolve(); released = Promise.withResolvers(); return {} },
  async subscribe ({ topic }) { node.services.pubsub.subscribe(topic); return {} },
  async publish ({ topic, text }) {
    const { recipients } = await node.services.pubsub.publish(topic, new TextEncoder().encode(text))
    return { recipients: recipients.map(String) }
  },
  async put_value ({ key, text }) {
    let taken = 0
    const value = new TextEncoder().encode(text)
    for await (const step of node.services.dht.put(new TextEncoder().encode(key), value)) {
      if (step.name === 'PEER_RESPONSE' && step.messageName === 'PUT_VALUE') taken++
    }
    return { taken }
  },
  async get_value ({ key }) {
    const value = await node.contentRouting.get(new TextEncoder().encode(key), { signal: AbortSignal.timeout(20000) })
    return { text: new TextDecoder().decode(value) }
  },
  async provide ({ key }) {
    let told = 0
    for await (const step of node.services.dht.provide(contentId(key))) {
      if (step.name === 'PEER_RESPONSE' && step.messageName === 'ADD_PROVIDER') told++
    }
    return { told }
  },
  async find_providers ({ key }) {
    const providers = []
    for await (const { id, multiaddrs } of node.contentRouting.findProviders(contentId(key), { signal: AbortSignal.timeout(20000) })) {
      providers.push({ peer: id.toString(), addrs: multiaddrs.map(String) })
    }
    return { providers }
  },
  async mesh ({ topic }) { return { peers: node.services.pubsub.getMeshPeers(topic) } }
}

emit({ event: 'ready', peer_id: node.peerId.toString(), addrs: node.getMultiaddrs().map(String) })

const lines = readline.createInterface({ input: process.stdin })
lines.on('line', async line => {
  const command = JSON.parse(line)
  try {
    emit({ event: 'answer', id: command.id, ...await commands[command.cmd](command) })
  } catch (error) {
    emit({ event: 'answer', id: command.id, error: `${error.name}: ${error.message}` })
  }
})
lines.on('close', async () => { await node.stop(); process.exit(0) })
