/** Tests a whole process whose clock is changed by libfaketime while it runs. */
import { mkdtempSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Receipt } from '../../src/core/accounting/receipt'
import { faketime } from '../../scripts/services/tools'
import { describeWith } from '../services/describe-with'
import { start } from '../support/manifold'

const HOUR_MS = 3_600_000

describeWith('faketime', 'a clock that is set during a run', () => {
  let folder: string
  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), 'manifold-clock-'))
  })
  afterEach(() => {
    rmSync(folder, { recursive: true, force: true })
  })

  const setClock = (offset: string): void => {
    writeFileSync(join(folder, 'offset.new'), offset)
    renameSync(join(folder, 'offset.new'), join(folder, 'offset'))
  }

  test.each([
    ['wrong by an hour at the start', '-3600', '+0'],
    ['set back by an hour', '+3600', '+0'],
  ])(
    '%s: what comes later has the right date, the receipt too, and durations are as they were',
    async (_, before, after) => {
      setClock(before)
      const running = start(
        [
          '--from',
          '-',
          '--to',
          `file:${join(folder, 'out-{HH}')}`,
          '--append',
          'at={now}',
          '--receipt',
          join(folder, 'receipt'),
          '--stall-timeout',
          '5s',
        ],
        {
          input: 'open',
          env: {
            TZ: 'UTC',
            LD_PRELOAD: faketime(),
            FAKETIME_TIMESTAMP_FILE: join(folder, 'offset'),
            FAKETIME_NO_CACHE: '1',
            FAKETIME_DONT_FAKE_MONOTONIC: '1',
          },
        },
      )
      const files = (): string[] => readdirSync(folder).filter((name) => name.startsWith('out-'))
      const lines = (): string[] =>
        files()
          .flatMap((name) => readFileSync(join(folder, name), 'utf8').split('\n').slice(0, -1))
          .map((line) => (JSON.parse(line) as { at: string }).at)
      const written = async (count: number): Promise<void> => {
        while (lines().length < count)
          await new Promise((resolve) => {
            setTimeout(resolve, 20)
          })
      }
      running.child.stdin?.write('{}\n')
      await written(1)
      setClock(after)
      running.child.stdin?.end('{}\n')
      const { code, stderr } = await running.done
      expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
      const now = Date.now()
      const right = lines().filter((at) => Math.abs(Date.parse(at) - now) < 60_000)
      const wrong = lines().filter((at) => Math.abs(Math.abs(Date.parse(at) - now) - HOUR_MS) < 60_000)
      expect([right.length, wrong.length]).toEqual([1, 1])
      // The hour in a file's name is that of the record in it.
      expect(files().sort()).toEqual([right, wrong].map(([at]) => `out-${at?.slice(11, 13) ?? ''}`).sort())
      const receipt = JSON.parse(readFileSync(join(folder, 'receipt'), 'utf8')) as Receipt
      expect(Math.abs(Date.parse(receipt.started) - now)).toBeLessThan(60_000)
      expect(Math.abs(Date.parse(receipt.ended) - now)).toBeLessThan(60_000)
      expect(receipt.seconds).toBeGreaterThan(0)
      expect(receipt.seconds).toBeLessThan(60)
    },
    30_000,
  )
})
