/**
 * Tests that missing records of a feed lie within a reported gap, whatever happened to the process, and that the gap is
 * not much longer than needed.
 */
import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Receipt } from '../../src/core/accounting/receipt'
import { ReceiveWatermark } from '../../src/endpoints/ws/receive-watermark'
import { start, type Running } from '../support/manifold'
import { startPeer, until, type Peer } from './ws/peer'

/** Numbered records of some bytes, and when each was sent, to whomever is connected. */
interface Log {
  readonly sent: number[]
  stop(): void
}
function send(peer: Peer, perSecond: number, bytes: number): Log {
  const sent: number[] = []
  const started = performance.now()
  const timer = setInterval(() => {
    const due = ((performance.now() - started) / 1000) * perSecond
    while (sent.length < due) {
      const text = JSON.stringify({ n: sent.length, pad: 'x'.repeat(bytes) })
      sent.push(Date.now())
      for (const socket of peer.sockets) if (socket.readyState === socket.OPEN) socket.send(text)
    }
  }, 5)
  return {
    sent,
    stop: () => {
      clearInterval(timer)
    },
  }
}

let folder: string
const open: { close(): Promise<void> }[] = []
let running: Running[] = []
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'manifold-missed-'))
})
afterEach(async () => {
  for (const one of running) {
    one.kill('SIGCONT')
    one.kill('SIGKILL')
    await one.done
  }
  running = []
  for (const thing of open.splice(0)) await thing.close()
  rmSync(folder, { recursive: true, force: true })
})

const run = (peer: Peer, ...more: readonly string[]): Running => {
  const one = start([
    '--from',
    peer.url,
    '--to',
    join(folder, 'out'),
    '--name',
    'missed',
    '--state',
    join(folder, 'state'),
    '--receipt',
    join(folder, 'receipt'),
    ...more,
  ])
  running.push(one)
  return one
}
const got = (): Set<number> =>
  new Set(
    !existsSync(join(folder, 'out'))
      ? []
      : readFileSync(join(folder, 'out'), 'utf8')
          .split('\n')
          .slice(0, -1)
          .map((line) => (JSON.parse(line) as { n: number }).n),
  )
const receipts = (): Receipt[] =>
  readFileSync(join(folder, 'receipt'), 'utf8')
    .trim()
    .split('\n')
    .map((line) => JSON.parse(line) as Receipt)

/** Dates of a gap are of whole milliseconds; what is on its way takes a moment. */
const MOMENT_MS = 10
function checkMissing(sent: readonly number[], from: number, wider: number): void {
  const there = got()
  const gaps = receipts().flatMap(({ gaps: some }) =>
    some.map(({ from: begin, to }) => ({ from: Date.parse(begin), to: Date.parse(to) })),
  )
  const last = Math.max(...there)
  const missing = sent.map((at, n) => ({ at, n })).filter(({ n }) => n >= from && n <= last && !there.has(n))
  expect(missing.length).toBeGreaterThan(0)
  expect(
    missing.filter(({ at }) => !gaps.some((gap) => at >= gap.from - MOMENT_MS && at <= gap.to + MOMENT_MS)),
  ).toEqual([])
  const told = gaps.reduce((sum, gap) => sum + gap.to - gap.from, 0)
  const first = missing[0]?.at ?? 0
  expect(told).toBeLessThan((missing.at(-1)?.at ?? 0) - first + wider)
}

test('after a stop in which the server went on sending and then cut: the gap begins before all that was lost of it', async () => {
  const peer = await startPeer()
  open.push(peer)
  const one = run(peer)
  await until(() => peer.sockets.length === 1, 'the connection')
  // So much that buffers overflow: the rest waits in the server, and is lost with it.
  const log = send(peer, 2000, 4000)
  try {
    await until(() => got().size > 1000, 'records')
    one.kill('SIGSTOP')
    await until(() => (peer.sockets[0]?.bufferedAmount ?? 0) > 4_000_000, 'a backlog', 20_000)
    peer.sockets[0]?.terminate()
    one.kill('SIGCONT')
    await until(() => peer.sockets.length === 2, 'another connection')
    const before = got().size
    await until(() => got().size > before + 2000, 'more records', 20_000)
  } finally {
    log.stop()
  }
  one.kill('SIGTERM')
  expect((await one.done).code).toBe(0)
  checkMissing(log.sent, 0, 3000)
}, 40_000)

test('killed after it had connected and before its first durable record: the next run tells of a gap from then on', async () => {
  const peer = await startPeer()
  open.push(peer)
  const one = run(peer)
  await until(() => peer.sockets.length === 1, 'the connection')
  // Nothing can be durable before the server sends; that it is connected is so within a second.
  await until(
    () =>
      existsSync(join(folder, 'state')) && readFileSync(join(folder, 'state/missed/0/flow')).includes('completeUntil'),
    'the state',
  )
  one.kill('SIGKILL')
  await one.done
  const log = send(peer, 100, 10)
  try {
    await until(() => log.sent.length > 50, 'records that nobody reads')
    const two = run(peer, '--count', '20')
    const { code } = await two.done
    // A bounded run that has missed something.
    expect(code).toBe(5)
  } finally {
    log.stop()
  }
  checkMissing(log.sent, 0, 5000)
}, 30_000)

test('killed amid records: the gap begins where the durable ones end', async () => {
  const peer = await startPeer()
  open.push(peer)
  const one = run(peer)
  await until(() => peer.sockets.length === 1, 'the connection')
  const log = send(peer, 500, 200)
  try {
    await until(() => got().size > 800, 'records')
    one.kill('SIGKILL')
    await one.done
    await until(() => log.sent.length > 1500, 'records that nobody reads')
    expect((await run(peer, '--count', '100').done).code).toBe(5)
  } finally {
    log.stop()
  }
  checkMissing(log.sent, 0, 5000)
}, 30_000)

/** A socket and an event loop, moved by hand. */
class Hand {
  now = 0
  read = 0
  paused = false
  pings = 0
  drainedAt: number[] = []
  private turns: (() => void)[] = []
  readonly watermark = new ReceiveWatermark({
    monotonic: () => this.now,
    bytesRead: () => this.read,
    isBusy: () => this.paused,
    ping: () => {
      this.watermark.pinged(++this.pings)
      return this.pings
    },
    advanced: (at) => {
      this.drainedAt.push(at)
    },
    nextTurn: (next) => {
      this.turns.push(next)
    },
  })
  turn(bytes = 0): void {
    this.now++
    this.read += bytes
    for (const next of this.turns.splice(0)) next()
    if (bytes > 0) this.watermark.arrived()
  }
}

test('a turn that finds nothing has read all; silence tells nothing more', () => {
  const fake = new Hand()
  fake.now = 100
  fake.turn(1000)
  for (let i = 0; i < 3; i++) fake.turn()
  expect(fake.watermark.at).toBe(101)
  fake.now = 5000
  fake.watermark.probe()
  for (let i = 0; i < 3; i++) fake.turn()
  expect(fake.watermark.at).toBe(101)
  expect(fake.watermark.quietAt).toBeGreaterThanOrEqual(5000)
})

test('after much has piled up only the answer to a ping counts', () => {
  const fake = new Hand()
  fake.now = 100
  fake.turn(1000)
  for (let i = 0; i < 3; i++) fake.turn()
  const { at } = fake.watermark
  fake.now = 10_000
  fake.turn(200_000)
  for (let i = 0; i < 3; i++) fake.turn()
  expect([fake.watermark.at, fake.pings]).toEqual([at, 1])
  for (let i = 0; i < 50; i++) fake.turn(50)
  expect(fake.watermark.at).toBe(at)
  fake.watermark.answered(1)
  expect(fake.watermark.at).toBeGreaterThan(10_000)
  const after = fake.now
  fake.now += 50
  fake.turn(50)
  for (let i = 0; i < 3; i++) fake.turn()
  expect(fake.watermark.at).toBeGreaterThan(after)
})
