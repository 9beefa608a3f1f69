/**
 * The built program reads a broker that is killed again and again: it lives, and of what it writes nothing is missing,
 * nothing is twice, and each key's order is kept.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createReadStream, existsSync, mkdtempSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { describeWith } from '../services/describe-with'
import { groupName, kcat, makeTopic, startKafka, type KafkaServer } from '../services/kafka'
import { start } from '../support/manifold'

/** At the least; it goes on while the broker is being killed. */
const RECORDS = process.env['MANIFOLD_LONG'] === '1' ? 1_000_000 : 50_000
const KEYS = 50
const KILLS = 5
const pause = (ms: number) =>
  new Promise((resolve) => {
    setTimeout(resolve, ms)
  })

/** `KEY;{"n":…}` per line, a portion at a time. @returns how many */
async function produce(server: KafkaServer, topic: string, killing: () => boolean): Promise<number> {
  // -E: it goes on where no broker can be reached.
  const child = spawn(
    kcat()!,
    [
      '-E',
      '-P',
      '-b',
      server.bootstrap,
      '-t',
      topic,
      '-K',
      ';',
      '-X',
      'enable.idempotence=true',
      '-X',
      'linger.ms=5',
      '-X',
      'reconnect.backoff.max.ms=500',
    ],
    { stdio: ['pipe', 'ignore', 'ignore'] },
  )
  const closed = once(child, 'close')
  let sent = 0
  while (killing() || sent < RECORDS) {
    const from = sent
    sent += 1000
    if (
      !child.stdin.write(
        Array.from(
          { length: 1000 },
          (_, index) => `k${(from + index) % KEYS};{"n":${from + index},"pad":"${'x'.repeat(150)}"}\n`,
        ).join(''),
      )
    )
      await once(child.stdin, 'drain')
    if (killing()) await pause(100)
  }
  child.stdin.end()
  const [code] = (await closed) as [number]
  if (code !== 0) throw new Error(`kcat ended with ${code}`)
  return sent
}

async function look(
  file: string,
): Promise<{ readonly count: number; readonly distinct: number; readonly outOfOrder: number }> {
  const seen = new Set<number>()
  const last = new Map<number, number>()
  let count = 0
  let outOfOrder = 0
  for await (const line of createInterface({ input: createReadStream(file) })) {
    const n = Number(/^\{"n":(\d+)/.exec(line)?.[1])
    count++
    seen.add(n)
    if ((last.get(n % KEYS) ?? -1) >= n) outOfOrder++
    last.set(n % KEYS, n)
  }
  return { count, distinct: seen.size, outOfOrder }
}

describeWith('kcat', 'a broker that is killed while it is read', () => {
  it.each(['without a group', 'in a group'])(
    '%s: nothing missing, nothing twice, order kept per key',
    async (how) => {
      const folder = mkdtempSync(join(tmpdir(), 'manifold-kafka-'))
      const server = await startKafka({
        own: true,
        properties: { 'broker.session.timeout.ms': 2000, 'broker.heartbeat.interval.ms': 400 },
      })
      let reader: ReturnType<typeof start> | undefined
      try {
        const topic = await makeTopic(server, { partitions: 4 })
        const out = join(folder, 'out.ndjson')
        const bytes = (): number => (existsSync(out) ? statSync(out).size : 0)
        reader = start([
          '--state',
          join(folder, 'state'),
          '--from',
          `kafka://${server.bootstrap}/${topic}`,
          ...(how === 'in a group' ? [`group=${groupName()}`, 'session-timeout=6s', 'heartbeat-every=1s'] : []),
          '--to',
          `file:${out}`,
        ])
        let killing = true
        const producing = produce(server, topic, () => killing)
        producing.catch(() => undefined)
        for (let kill = 0; kill < KILLS; kill++) {
          // It is in the midst of it: more has arrived since the last time.
          for (const before = bytes(); bytes() <= before; ) {
            if (reader.child.exitCode !== null) throw new Error(`the reader ended: ${reader.stderr()}`)
            await pause(20)
          }
          await server.kill()
          await pause(300)
          await server.restart()
        }
        killing = false
        const sent = await producing
        for (const until = Date.now() + 60_000; (await look(out)).distinct < sent && Date.now() < until; )
          await pause(200)
        reader.kill('SIGTERM')
        expect((await reader.done).code).toBe(0)
        expect(await look(out)).toEqual({ count: sent, distinct: sent, outOfOrder: 0 })
      } finally {
        if (reader !== undefined && reader.child.exitCode === null) {
          reader.kill('SIGKILL')
          await reader.done
        }
        await server.stop()
        rmSync(folder, { recursive: true, force: true })
      }
    },
    180_000,
  )
})
