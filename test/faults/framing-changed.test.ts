import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { start, type Running } from '../support/manifold'
import { linesOf, startObjectStore } from '../support/object-store'

function isSealed(spool: string): boolean {
  return (
    existsSync(spool) &&
    readdirSync(spool).some(
      (name) => name.endsWith('.seg') && readFileSync(join(spool, name)).toString('latin1', 4096, 4100) === 'SEAL',
    )
  )
}

test.each([
  ['envelope', 'lines'],
  ['lines', 'envelope'],
])(
  'an object that was sealed with framing=%s is sent as it is by a line that says %s',
  async (before, now) => {
    const folder = mkdtempSync(join(tmpdir(), 'manifold-framing-'))
    const store = await startObjectStore()
    try {
      const run = (framing: string, input: string): Running =>
        start(
          [
            '--from',
            '-',
            '--to',
            's3://lake/a',
            'region=us-east-1',
            `endpoint=${store.endpoint}`,
            'path-style',
            'access-key-id={env:KEY}',
            'secret-access-key={env:SECRET}',
            `framing=${framing}`,
            '--state',
            join(folder, 'state'),
            '--name',
            'framed',
          ],
          { env: { KEY: 'a', SECRET: 'b' }, input },
        )
      store.away = true
      const first = run(before, 'one\n')
      while (!isSealed(join(folder, 'state/framed/0/spool')))
        await new Promise((resolve) => {
          setTimeout(resolve, 20)
        })
      first.kill('SIGKILL')
      await first.done
      store.away = false
      const { code, stderr } = await run(now, 'two\n').done
      expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
      const values = linesOf(store).map((line) =>
        line.startsWith('{') ? (JSON.parse(line) as { value: string }).value : line,
      )
      expect(values).toEqual(['one', 'two'])
      expect(linesOf(store).map((line) => line.startsWith('{'))).toEqual([before === 'envelope', now === 'envelope'])
    } finally {
      await store.stop()
      rmSync(folder, { recursive: true, force: true })
    }
  },
  20_000,
)
