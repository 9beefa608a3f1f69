/**
 * The built program writes to a broker that is killed again and again: it lives, and in the topic nothing is missing,
 * nothing is twice, and each key's order is kept.
 */
import { once } from 'node:events'
import { describeWith } from '../services/describe-with'
import { ends, makeTopic, runKcat, startKafka } from '../services/kafka'
import { start } from '../support/manifold'

const RECORDS = process.env['MANIFOLD_LONG'] === '1' ? 1_000_000 : 150_000
const KEYS = 50
const KILLS = 5
const PORTION = 1000
const pause = (ms: number) =>
  new Promise((resolve) => {
    setTimeout(resolve, ms)
  })

describeWith('kcat', 'a broker that is killed while it is written to', () => {
  it.each(['none', 'lz4'])(
    'compression=%s: nothing missing, nothing twice, order kept per key',
    async (compression) => {
      const server = await startKafka({
        own: true,
        properties: { 'broker.session.timeout.ms': 2000, 'broker.heartbeat.interval.ms': 400 },
      })
      const topic = await makeTopic(server, { partitions: 4 })
      const writer = start(
        [
          '--from',
          '-',
          '--to',
          `kafka://${server.bootstrap}/${topic}`,
          'key-separator=;',
          `compression=${compression}`,
        ],
        { input: 'open' },
      )
      const stdin = writer.child.stdin!
      stdin.on('error', () => undefined)
      try {
        let fed = 0
        // Kills come in the midst of each seventh; the program takes in more than that while nobody listens.
        let allowed = 0
        let written = 0
        const feeding = (async () => {
          while (fed < RECORDS) {
            if (fed >= allowed) {
              await pause(5)
              continue
            }
            const portion = Array.from(
              { length: Math.min(PORTION, RECORDS - fed) },
              (_, index) => `k${(fed + index) % KEYS};{"n":${fed + index},"pad":"${'x'.repeat(150)}"}\n`,
            )
            if (!stdin.write(portion.join(''))) await Promise.race([once(stdin, 'drain'), writer.done])
            if (writer.child.exitCode !== null) throw new Error(`the writer ended: ${writer.stderr()}`)
            fed += portion.length
            if (allowed < RECORDS) await pause(10)
          }
          stdin.end()
        })()
        feeding.catch(() => undefined)
        for (let kill = 0; kill < KILLS; kill++) {
          const alive = (): void => {
            if (writer.child.exitCode !== null) throw new Error(`the writer ended: ${writer.stderr()}`)
          }
          const half = Math.floor(RECORDS / (KILLS + 2) / 2)
          // It writes: something has arrived that was not there when the broker came up.
          allowed += half
          for (
            const before = written;
            written <= before;
            written = (await ends(server, topic)).reduce((sum, end) => sum + end, 0)
          ) {
            alive()
            await pause(20)
          }
          allowed += half
          while (fed < allowed - half / 2) {
            alive()
            await pause(1)
          }
          await server.kill()
          await pause(300)
          await server.restart()
          written = (await ends(server, topic)).reduce((sum, end) => sum + end, 0)
        }
        allowed = RECORDS
        await feeding
        const { code, stderr } = await writer.done
        expect([code, stderr.split('\n').filter((line) => /error|abandoned/.test(line))]).toEqual([0, []])

        const last = new Map<string, number>()
        const seen = new Set<number>()
        const wrong: string[] = []
        for (const line of (
          await runKcat(['-C', '-q', '-e', '-b', server.bootstrap, '-t', topic, '-o', 'beginning', '-f', '%k;%s\n'])
        )
          .toString()
          .trimEnd()
          .split('\n')) {
          const [, key = '', n] = /^(k\d+);\{"n":(\d+)/.exec(line) ?? []
          const number = Number(n)
          if (key !== `k${number % KEYS}`) wrong.push(`${key} ${number}: another key`)
          if (seen.has(number)) wrong.push(`${number} twice`)
          if ((last.get(key) ?? -1) >= number) wrong.push(`${number} after ${last.get(key)}`)
          seen.add(number)
          last.set(key, number)
        }
        expect(wrong.slice(0, 10)).toEqual([])
        expect(seen.size).toBe(RECORDS)
      } finally {
        if (writer.child.exitCode === null) {
          writer.kill('SIGKILL')
          await writer.done
        }
        await server.stop()
      }
    },
    180_000,
  )
})
