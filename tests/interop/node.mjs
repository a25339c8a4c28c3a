// A js-libp2p node under the control of a test: JSON commands on stdin, JSON events on stdout.
import readline from 'node:readline'
import { createLibp2p } from 'libp2p'
import { tcp } from '@libp2p/tcp'
import { noise } from '@libp2p/noise'
import { yamux } from '@libp2p/yamux'
import { identify } from '@libp2p/identify'
import { ping } from '@libp2p/ping'
import { gossipsub } from '@libp2p/gossipsub'
import { multiaddr } from '@multiformats/multiaddr'

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

const node = await createLibp2p({
  addresses: { listen: ['/ip4/127.0.0.1/tcp/0'] },
  transports: [tcp()],
  connectionEncrypters: [noise()],
  streamMuxers: [yamux()],
  services: {
    identify: identify(),
    ping: ping(),
    pubsub: gossipsub({ msgIdFn: messageId, allowPublishToZeroTopicPeers: true })
  }
})

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

const commands = {
  async dial ({ addr }) { return { peer: (await node.dial(multiaddr(addr))).remotePeer.toString() } },
  async ping ({ addr }) { return { ms: await node.services.ping.ping(multiaddr(addr)) } },
  async subscribe ({ topic }) { node.services.pubsub.subscribe(topic); return {} },
  async publish ({ topic, text }) {
    const { recipients } = await node.services.pubsub.publish(topic, new TextEncoder().encode(text))
    return { recipients: recipients.map(String) }
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
