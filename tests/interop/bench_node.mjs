// A js-libp2p node for `make bench`: JSON commands on stdin, JSON answers on stdout.
// It lies here because Node looks for packages in the folders above a program.
import fs from 'node:fs'
import { randomBytes } from 'node:crypto'
import readline from 'node:readline'
import { createLibp2p } from 'libp2p'
import { tcp } from '@libp2p/tcp'
import { noise } from '@libp2p/noise'
import { yamux } from '@libp2p/yamux'
import { identify } from '@libp2p/identify'
import { ping } from '@libp2p/ping'
import { multiaddr } from '@multiformats/multiaddr'

const ECHO = '/bench/echo/1'
const SINK = '/bench/sink/1'
const MANY = { maxInboundStreams: 1e6, maxOutboundStreams: 1e6 }
const count = Number(process.argv[process.argv.indexOf('--nodes') + 1])
const print = line => process.stdout.write(JSON.stringify(line) + '\n')

async function start () {
  const node = await createLibp2p({
    addresses: { listen: ['/ip4/127.0.0.1/tcp/0'] },
    transports: [tcp()],
    connectionEncrypters: [noise()],
    streamMuxers: [yamux()],
    connectionManager: { inboundConnectionThreshold: Infinity, maxIncomingPendingConnections: 1000 },
    services: { identify: identify(), ping: ping() }
  })
  await node.handle(ECHO, async stream => {
    for await (const data of stream) {
      if (!stream.send(data)) await stream.onDrain()
    }
    await stream.close()
  }, MANY)
  await node.handle(SINK, async stream => {
    for await (const data of stream) void data
    stream.send(Uint8Array.of(1))
    await stream.close()
  }, MANY)
  return node
}

// resolves once `size` bytes more have come
function arrivals (stream) {
  let have = 0
  let waiting
  stream.addEventListener('message', ({ data }) => {
    have += data.byteLength
    if (waiting != null && have >= waiting.size) { have -= waiting.size; const { done } = waiting; waiting = undefined; done() }
  })
  return size => new Promise(done => {
    if (have >= size) { have -= size; done() } else { waiting = { size, done } }
  })
}

const at = (sorted, part) => sorted[Math.min(sorted.length - 1, Math.floor(part * sorted.length))]
function quantiles (values) {
  const sorted = values.slice().sort((a, b) => a - b)
  return { p50: at(sorted, 0.5), p99: at(sorted, 0.99), max: sorted.at(-1) }
}

async function repeat (command, step) {
  const times = []
  const begin = performance.now()
  for (let i = 0; i < command.n && performance.now() - begin < (command.max_seconds ?? 40) * 1000; i++) {
    const from = performance.now()
    await step()
    times.push(performance.now() - from)
  }
  return { ok: times.length, per_s: times.length / (performance.now() - begin) * 1000, ms: quantiles(times) }
}

const commands = {
  async connect (node, command) { await node.dial(multiaddr(command.addr)); return {} },
  async ping (node, command) {
    const step = () => node.services.ping.ping(multiaddr(command.addr))
    return await repeat(command, step)
  },
  async handshakes (node, command) {
    return await repeat(command, async () => { await (await node.dial(multiaddr(command.addr))).close() })
  },
  async streams (node, command) {
    const connection = await node.dial(multiaddr(command.addr))
    const message = randomBytes(command.size)
    return await repeat(command, async () => {
      const stream = await connection.newStream(ECHO, MANY)
      const arrived = arrivals(stream)(message.length)
      stream.send(message)
      await arrived
      await stream.close()
    })
  },
  async echo (node, command) {
    const stream = await node.dialProtocol(multiaddr(command.addr), ECHO, MANY)
    const arrived = arrivals(stream)
    const message = randomBytes(command.size)
    const result = await repeat(command, async () => {
      const answer = arrived(message.length)
      stream.send(message)
      await answer
    })
    await stream.close()
    return result
  },
  async throughput (node, command) {
    const stream = await node.dialProtocol(multiaddr(command.addr), SINK, MANY)
    const arrived = arrivals(stream)(1)
    const chunk = new Uint8Array(command.chunk)
    const begin = performance.now()
    let sent = 0
    while (sent < command.bytes && performance.now() - begin < (command.max_seconds ?? 40) * 1000) {
      if (!stream.send(chunk)) await stream.onDrain()
      sent += chunk.length
    }
    await stream.close()
    await arrived
    const seconds = (performance.now() - begin) / 1000
    return { bytes: sent, seconds, MBps: sent / seconds / 1e6 }
  },
  async stats () {
    const pages = Number(fs.readFileSync('/proc/self/statm', 'utf8').split(' ')[1])
    return { rss_mb: pages * 4096 / (1 << 20) }
  }
}

const nodes = []
while (nodes.length < count) nodes.push(await start())
print({
  event: 'ready',
  t: (performance.timeOrigin + performance.now()) / 1000,
  nodes: nodes.map(node => ({ peer_id: node.peerId.toString(), addr: node.getMultiaddrs()[0].toString() }))
})
readline.createInterface({ input: process.stdin }).on('line', async line => {
  const command = JSON.parse(line)
  try {
    print({ id: command.id, ok: true, result: await commands[command.cmd](nodes[command.node ?? 0], command) })
  } catch (error) {
    print({ id: command.id, ok: false, error: error instanceof Error ? `${error.name}: ${error.message}` : String(error?.error ?? error?.type ?? error) })
  }
}).on('close', () => process.exit(0))
