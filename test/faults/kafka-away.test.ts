/**
 * The only broker is away for a while, dead or frozen, while the built program writes to it and reads from it: status
 * and log say so, memory stays what it is, and afterwards it catches up; nothing is missing, nothing is twice, and each
 * key's order is kept. MANIFOLD_LONG makes it two minutes.
 */
import { spawn } from 'node:child_process'
import { createReadStream, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { FlowStatus } from '../../src/core/flow/status'
import { describeWith } from '../services/describe-with'
import { groupName, kcat, makeTopic, startKafka } from '../services/kafka'
import {
  assertAlive,
  envelopeKey,
  KafkaFeed,
  scanRecords,
  untilDelivering,
  pause,
  statusAt,
} from '../support/kafka-feed'
import { start, type Running } from '../support/manifold'

const LONG = process.env['MANIFOLD_LONG'] === '1'
const AWAY_MS = LONG ? 120_000 : 15_000
/** What a frozen broker does not answer is given up after so long; the default in the long form. */
const PATIENCE = LONG ? [] : ['request-timeout=2s']
/**
 * Above what a process had half-way through: it fills its share of memory in the first half and must not grow beyond in
 * the second.
 */
const GROWTH = 24 * 1024 * 1024

/** Resident bytes of the process itself: the launcher may have put another in its place. */
function resident(pid: number): number {
  return Number(/^VmRSS:\s+(\d+) kB/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1] ?? 0) * 1024
}

describeWith('kcat', `a broker that is away for ${AWAY_MS / 1000} s`, () => {
  // Mostly they wait: side by side.
  it.concurrent.each(['killed', 'frozen'])(
    '%s: those that write to it and read from it say so, hold still and catch up',
    async (how) => {
      const folder = mkdtempSync(join(tmpdir(), 'manifold-kafka-away-'))
      const server = await startKafka({
        own: true,
        properties: { 'broker.session.timeout.ms': 2000, 'broker.heartbeat.interval.ms': 400 },
      })
      const running = new Map<string, Running>()
      const socket = (name: string): string => join(folder, `${name}.sock`)
      const status = (name: string): Promise<FlowStatus | undefined> => statusAt(socket(name))
      const endpoint = (name: string, of: FlowStatus) => (name === 'writer' ? of.sinks[0]! : of.sources[0]!)
      let feed: KafkaFeed | undefined
      try {
        const topic = await makeTopic(server, { partitions: 4 })
        const uri = `kafka://${server.bootstrap}/${topic}`
        const begin = (name: string, args: readonly string[], input?: 'open'): Running => {
          const one = start(
            [...args, '--metrics', `unix:${socket(name)}`, '--state', join(folder, `state-${name}`)],
            input === undefined ? {} : { input },
          )
          running.set(name, one)
          return one
        }
        // A run that has an end keeps its log to itself where all went well, unless it is asked.
        const writer = begin(
          'writer',
          ['--from', '-', '--to', uri, 'key-separator=;', ...PATIENCE, '--log-level', 'info'],
          'open',
        )
        const outs = ['alone', 'member'].map((name) => ({ name, out: join(folder, `${name}.ndjson`) }))
        for (const { name, out } of outs)
          begin(name, [
            '--from',
            uri,
            ...(name === 'member' ? [`group=${groupName()}`, 'session-timeout=10s', 'heartbeat-every=1s'] : []),
            ...PATIENCE,
            '--to',
            `file:${out}`,
            'framing=envelope',
          ])
        const pids = new Map([...running].map(([name, { pid }]) => [name, pid]))

        feed = new KafkaFeed(writer)
        await untilDelivering(running, status)

        if (how === 'killed') await server.kill()
        else server.freeze()
        feed.unthrottled = true
        const gone = Date.now()
        const seen = new Map(
          [...running.keys()].map((name) => [
            name,
            { states: new Set<string>(), errors: new Set<string>(), first: 0, second: 0 },
          ]),
        )
        for (; Date.now() - gone < AWAY_MS; await pause(250)) {
          assertAlive(running)
          for (const [name, about] of seen) {
            const of = await status(name)
            if (of !== undefined) {
              about.states.add(endpoint(name, of).state)
              if (endpoint(name, of).error !== undefined) about.errors.add(endpoint(name, of).error!)
            }
            const half = Date.now() - gone < AWAY_MS / 2 ? 'first' : 'second'
            about[half] = Math.max(about[half], resident(pids.get(name) ?? 0))
          }
        }
        if (how === 'killed') await server.restart()
        else server.thaw()
        feed.unthrottled = false
        const back = Date.now()
        await untilDelivering(running, status)
        await feed.end()
        const { fed } = feed
        const { code } = await writer.done
        expect({
          code,
          errors: writer
            .stderr()
            .split('\n')
            .filter((line) => /abandoned|twice/.test(line)),
        }).toEqual({ code: 0, errors: [] })
        running.delete('writer')
        for (const { name } of outs) {
          for (
            const giveUpAt = Date.now() + 90_000;
            ((await status(name))?.sinks[0]?.delivered ?? 0) < fed;
            await pause(100)
          ) {
            assertAlive(running)
            if (Date.now() > giveUpAt)
              throw new Error(`${name} does not catch up: ${JSON.stringify(await status(name))}`)
          }
        }
        const caughtUp = Date.now() - back
        const told = new Map<string, (string | number)[]>()
        for (const [name, one] of [['writer', writer] as const, ...running]) {
          told.set(
            name,
            one
              .stderr()
              .split('\n')
              .filter((line) => line.includes('trying again'))
              .map((line) => {
                const [, times] = /\((\d+) times\); trying again/.exec(line) ?? []
                return times === undefined ? line.replace(/\d+/g, '#') : Number(times)
              }),
          )
          if (name !== 'writer') {
            one.kill('SIGTERM')
            expect((await one.done).code).toBe(0)
          }
        }
        process.stderr.write(
          `kafka ${how} for ${AWAY_MS / 1000} s: ${fed} records, caught up ${caughtUp} ms after it was back; ${[...seen]
            .map(
              ([name, { first, second, errors }]) =>
                `${name}: at most ${Math.round(first / 1048576)} MiB, then ${Math.round(second / 1048576)} MiB; told at ${told
                  .get(name)
                  ?.map((each) => (typeof each === 'number' ? each : 'new'))
                  .join()}; ${[...errors].join(' / ')}`,
            )
            .join('; ')}\n`,
        )

        for (const [name, { states, errors, first, second }] of seen) {
          expect({ name, backsOff: states.has('backing off'), errors: errors.size > 0 }).toEqual({
            name,
            backsOff: true,
            errors: true,
          })
          // Each reason when it is a new one, then at the second, the fourth … time.
          const lines = told.get(name) ?? []
          const reasons = lines.filter((each) => typeof each === 'string')
          const counts = lines.filter((each) => typeof each === 'number')
          expect(lines.length).toBeGreaterThanOrEqual(2)
          expect([...new Set(reasons)]).toEqual(reasons)
          expect(counts.every((count, at) => Number.isInteger(Math.log2(count)) && count > (counts[at - 1] ?? 1))).toBe(
            true,
          )
          expect({ name, grown: second > first + GROWTH }).toEqual({ name, grown: false })
        }

        const reading = spawn(
          kcat()!,
          ['-C', '-q', '-e', '-b', server.bootstrap, '-t', topic, '-o', 'beginning', '-f', '%k;%s\n'],
          { stdio: ['ignore', 'pipe', 'ignore'] },
        )
        expect(await scanRecords(reading.stdout, (line) => line.slice(0, line.indexOf(';')))).toEqual({
          count: fed,
          distinct: fed,
          outOfOrder: 0,
        })
        for (const { out } of outs) {
          expect(await scanRecords(createReadStream(out), envelopeKey)).toEqual({
            count: fed,
            distinct: fed,
            outOfOrder: 0,
          })
        }
      } finally {
        for (const one of running.values())
          if (one.child.exitCode === null) {
            one.kill('SIGKILL')
            await one.done
          }
        await feed?.end().catch(() => undefined)
        await server.stop()
        rmSync(folder, { recursive: true, force: true })
      }
    },
    AWAY_MS + 300_000,
  )
})
