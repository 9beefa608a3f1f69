/**
 * Tests files that are damaged, may not be read, or are too many to be open at once: the others are read, and the fault
 * is named.
 */
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { appendFileSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { gzipSync, zstdCompressSync } from 'node:zlib'
import { cleanEnv, LAUNCHER, manifold } from '../support/manifold'

let folder: string
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'manifold-damage-'))
})
afterEach(() => {
  rmSync(folder, { recursive: true, force: true })
})
const at = (name: string): string => join(folder, name)
const run = (...more: string[]): ReturnType<typeof manifold> =>
  manifold(['--from', `file:${at('in/*')}`, ...more, '--to', `file:${at('out')}`, '--state', at('state')])
const out = (): string => readFileSync(at('out'), 'utf8')
beforeEach(() => {
  mkdirSync(at('in'))
})

/** Noise, so that a flipped byte is met where it lies. */
function noise(lines: number): string {
  let seed = 1
  return Array.from({ length: lines }, () => {
    seed = (seed * 48271) % 2147483647
    return `${seed.toString(36)}\n`
  }).join('')
}

test.each([
  ['cut short', (whole: Buffer) => whole.subarray(0, whole.length / 2), /ends too early/],
  [
    'with a flipped byte in its middle',
    (whole: Buffer) => {
      const copy = Buffer.from(whole)
      copy.fill(0xff, whole.length >> 1, (whole.length >> 1) + 8)
      return copy
    },
    /damaged/,
  ],
] as const)(
  'a gzip file %s: what could be read of it is delivered, and all of the later files; it is named, in every run',
  async (_, damage, why) => {
    const text = noise(20_000)
    writeFileSync(at('in/a.gz'), damage(gzipSync(text)))
    writeFileSync(at('in/b.gz'), gzipSync('b1\nb2\n'))
    writeFileSync(at('in/c'), 'c1\n')
    const first = await run()
    expect(first).toMatchObject({ code: 5 })
    expect(first.stderr).toMatch(/in\/a\.gz/)
    expect(first.stderr).toMatch(why)
    expect(out().endsWith('b1\nb2\nc1\n')).toBe(true)
    const got = out().slice(0, -'b1\nb2\nc1\n'.length)
    // Behind a flipped byte the engine may find something else for a while, and only then that it is wrong.
    expect(got.startsWith(text.slice(0, 0.4 * text.length)) && got.endsWith('\n')).toBe(true)
    appendFileSync(at('in/c'), 'c2\n')
    const second = await run()
    expect(second).toMatchObject({ code: 5 })
    expect(second.stderr).toMatch(/in\/a\.gz/)
    expect(out()).toBe(`${got}b1\nb2\nc1\nc2\n`)
    if (!text.startsWith(got)) return
    writeFileSync(at('in/a.gz'), gzipSync(text))
    expect(await run()).toMatchObject({ code: 0 })
    expect(out()).toBe(`${got}b1\nb2\nc1\nc2\n${text.slice(got.length)}`)
  },
)

test.each([
  ['gz', gzipSync],
  ['zst', zstdCompressSync],
] as const)(
  'something else behind whole .%s data: what is before it is delivered to its last byte, and it is named',
  async (suffix, compress) => {
    writeFileSync(at(`in/a.${suffix}`), Buffer.concat([compress('a1\na2'), Buffer.from('garbage')]))
    writeFileSync(at('in/b'), 'b1\n')
    const first = await run()
    expect(first).toMatchObject({ code: 5 })
    expect(first.stderr).toMatch(/something else follows/)
    expect(out()).toBe('a1\na2\nb1\n')
    expect(await run()).toMatchObject({ code: 5 })
    expect(out()).toBe('a1\na2\nb1\n')
  },
)

test('where nothing at all can be read the source has failed', async () => {
  writeFileSync(at('in/a.gz'), 'plain text')
  const { code, stderr } = await run()
  expect(code).toBe(3)
  expect(stderr).toMatch(/in\/a\.gz: this is no gzip data/)
})

test('followed, a damaged file does not stop the flow', async () => {
  writeFileSync(at('in/a.gz'), Buffer.from('no gzip'))
  writeFileSync(at('in/b'), 'b1\n')
  const { child, done, stop } = follow([])
  await seen('b1\n')
  appendFileSync(at('in/b'), 'b2\n')
  await seen('b1\nb2\n')
  stop()
  expect((await done).stderr).toMatch(/in\/a\.gz.*no gzip data/)
  expect(child.exitCode).toBe(0)
})

function follow(limit: readonly string[]): {
  readonly child: ReturnType<typeof spawn>
  readonly done: Promise<{ readonly stderr: string }>
  stop(): void
} {
  const command = [
    ...limit,
    `exec ${LAUNCHER} --from 'file:${at('in/*')}' follow --to file:${at('out')} --state ${at('state')}`,
  ].join('; ')
  const child = spawn('/bin/sh', ['-c', command], { env: cleanEnv(), stdio: ['ignore', 'ignore', 'pipe'] })
  let stderr = ''
  child.stderr.on('data', (chunk: Buffer) => {
    stderr += chunk.toString()
  })
  return {
    child,
    done: once(child, 'close').then(() => ({ stderr })),
    stop: () => {
      child.kill('SIGTERM')
    },
  }
}
async function seen(text: string): Promise<void> {
  const wanted = text.split('\n').sort().join('\n')
  for (;;) {
    let now = ''
    try {
      now = out()
    } catch {
      /* not yet */
    }
    if (now.length >= text.length) {
      expect(now.split('\n').sort().join('\n')).toBe(wanted)
      return
    }
    await new Promise((resolve) => {
      setTimeout(resolve, 20)
    })
  }
}

test('six hundred followed files need few descriptors, and are all read under a low limit', async () => {
  const names = Array.from({ length: 600 }, (_, index) => `f${index}`)
  for (const name of names) writeFileSync(at(`in/${name}`), `${name}\n`)
  const { child, done, stop } = follow(['ulimit -n 64'])
  await seen(names.map((name) => `${name}\n`).join(''))
  const open = readdirSync(`/proc/${child.pid ?? 0}/fd`).flatMap((fd) => {
    try {
      return [execFileSync('readlink', [`/proc/${child.pid ?? 0}/fd/${fd}`]).toString()]
    } catch {
      return []
    }
  })
  expect(open.filter((path) => path.includes('/in/')).length).toBeLessThanOrEqual(17)
  appendFileSync(at('in/f7'), 'more\n')
  await seen([...names, 'more'].map((name) => `${name}\n`).join(''))
  stop()
  await done
  expect(child.exitCode).toBe(0)
}, 60_000)
