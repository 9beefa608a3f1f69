/** Tests wrong command lines and a hostile world: the message is clear, the exit code is right, and nothing is lost. */
import { execFileSync, spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { gunzipSync } from 'node:zlib'
import { Bucket, startS3, type S3Server } from '../services/s3'
import { describeWith } from '../services/describe-with'
import { startFeed } from '../support/feed'
import { httpGet } from '../support/http'
import { cleanEnv, LAUNCHER, manifold, start } from '../support/manifold'

let folder: string
beforeEach(() => {
  folder = mkdtempSync(join(tmpdir(), 'manifold-bad-'))
})
afterEach(() => {
  rmSync(folder, { recursive: true, force: true })
})
const state = (): string[] => ['--state', join(folder, 'state')]

/**
 * 8 MiB, to be unmounted. undefined, loudly, where none can be mounted; where all that a machine can have is demanded
 * that is a failure.
 */
function smallDisk(): string | undefined {
  const disk = join(folder, 'disk')
  mkdirSync(disk)
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=8m', 'tmpfs', disk], { stdio: 'pipe' })
    return disk
  } catch (error) {
    if (process.env['MANIFOLD_REQUIRE_SERVICES'] === '1') throw error
    process.stderr.write(`SKIPPED in part: no tmpfs can be mounted here: ${String(error)}\n`)
    return undefined
  }
}

describe('command lines', () => {
  test.each([
    [['--from', 'kafak://h/t', '--to', '-'], /unknown scheme 'kafak'/],
    [['--from', '-', '--to', '-', 'framming=lines'], /unknown option 'framming'.*did you mean 'framing'/],
    [['--from', '-', 'max-record=ten', '--to', '-'], /max-record.*a size is expected/],
    [['--from', '-'], /--to is missing/],
    [['--from', '-', '--to', '-', '--idel', '3s'], /--idel.*--idle/],
  ])('%j is refused with exit 2 and one line that names the right word', async (args, message) => {
    const { code, stderr, stdout } = await manifold(args, { input: 'x\n' })
    expect(code).toBe(2)
    expect(stderr).toMatch(message)
    expect(stderr).not.toMatch(/\n\s+at /)
    expect(stdout).toHaveLength(0)
  })

  test('all faults are told at once', async () => {
    const { code, stderr } = await manifold(['--from', 'nope://x', '--to', '-', 'framming=x', '--idel', '3s'])
    expect(code).toBe(2)
    expect(stderr).toMatch(/nope/)
    expect(stderr).toMatch(/framming/)
    expect(stderr).toMatch(/idel/)
  })
})

describe('bytes', () => {
  test('NUL, carriage returns, invalid UTF-8 and empty lines pass unchanged', async () => {
    const input = Buffer.concat([
      Buffer.from('a\u0000b\r\n\n\n'),
      Buffer.from([0xff, 0xfe, 0xc3, 0x28, 0x0a]),
      Buffer.from('\u0000\n'),
    ])
    expect((await manifold(['--from', '-', '--to', '-'], { input })).stdout).toEqual(input)
  })

  test('a last line without newline gets one, and is no second record', async () => {
    const { code, stdout } = await manifold(['--from', '-', '--to', '-'], { input: 'a\nb' })
    expect({ code, text: stdout.toString() }).toEqual({ code: 0, text: 'a\nb\n' })
  })

  test('a line beyond max-record ends a run without state with 5, after what came before it was delivered', async () => {
    const { code, stdout, stderr } = await manifold(['--from', '-', 'max-record=1KiB', '--to', '-'], {
      input: `one\n${'x'.repeat(5000)}\nafter\n`,
    })
    expect(code).toBe(5)
    expect(stdout.toString()).toBe('one\n')
    expect(stderr).toMatch(/1024|1KiB|max-record/)
  })

  test('a line of 1 GiB becomes a dead letter with its head, length and hash, in bounded memory, and all others pass', async () => {
    const script =
      "process.stdout.write('before\\n');const b=Buffer.alloc(1<<20,120);let n=1024;(function w(){while(n>0){n--;if(!process.stdout.write(b)){process.stdout.once('drain',w);return}}process.stdout.write('\\nafter\\n')})()"
    const dead = join(folder, 'dead.ndjson')
    const run = spawnSync(
      'sh',
      ['-c', `node -e "$SCRIPT" | /usr/bin/env time -f 'KB=%M' "$MANIFOLD" --from - --to - --dead-letter "file:$DEAD"`],
      { env: cleanEnv({ SCRIPT: script, MANIFOLD: LAUNCHER, DEAD: dead }), maxBuffer: 1 << 20, timeout: 120_000 },
    )
    expect(run.stdout.toString()).toBe('before\nafter\n')
    expect(run.status).toBe(5)
    const letter = JSON.parse(readFileSync(dead, 'utf8').trim()) as {
      truncated: boolean
      length: number
      sha256: string
      value: string
    }
    const hash = createHash('sha256')
    const block = Buffer.alloc(1 << 20, 120)
    for (let n = 0; n < 1024; n++) hash.update(block)
    expect(letter).toMatchObject({ truncated: true, length: 1 << 30, sha256: hash.digest('hex') })
    expect(letter.value.length).toBeLessThanOrEqual(65_536)
    const used = /KB=(\d+)/.exec(run.stderr.toString())?.[1]
    if (used !== undefined) expect(Number(used)).toBeLessThan(200 * 1024)
  }, 150_000)
})

describe('pipes and signals', () => {
  test('a reader that goes away ends the run with 141, silently', () => {
    const run = spawnSync('bash', ['-c', `yes | "${LAUNCHER}" --from - --to - | head -1; echo "\${PIPESTATUS[1]}"`], {
      env: cleanEnv(),
      timeout: 20_000,
    })
    expect(run.stdout.toString()).toBe('y\n141\n')
    expect(run.stderr.toString()).toBe('')
  })

  test('SIGTERM with idle stdin ends at once with 0', async () => {
    const running = start(['--from', '-', '--to', '-'], { input: 'open' })
    running.child.stdin?.write('one\n')
    await new Promise((resolve) => {
      running.child.stdout?.once('data', resolve)
    })
    const from = Date.now()
    running.kill('SIGTERM')
    const { code, stdout } = await running.done
    running.child.stdin?.destroy()
    expect({ code, text: stdout.toString() }).toEqual({ code: 0, text: 'one\n' })
    expect(Date.now() - from).toBeLessThan(2000)
  })

  test('SIGTERM with a stopped reader of stdout is out within the grace, by the signal, for records in hand are lost with it', async () => {
    const socket = join(folder, 'metrics')
    const script = `yes 0123456789012345678901234567890123456789 | head -c 50000000 | (exec "${LAUNCHER}" --from - --to - --grace 1s --metrics unix:${socket}) | (read -r line; sleep 20)`
    const shell = start(['--version'])
    await shell.done
    const child = (await import('node:child_process')).spawn('bash', ['-c', script], {
      env: cleanEnv(),
      detached: true,
      stdio: 'ignore',
    })
    try {
      let pid: number | undefined
      for (let i = 0; i < 200 && pid === undefined; i++) {
        await new Promise((resolve) => {
          setTimeout(resolve, 50)
        })
        pid = descendant(child.pid ?? 0, 'manifold.js')
      }
      expect(pid).toBeDefined()
      // All that fits into memory and pipe is read, and nothing moves any more.
      for (let before = -1, read = 0; read === 0 || read !== before; ) {
        before = read
        await new Promise((resolve) => {
          setTimeout(resolve, 200)
        })
        const status = await httpGet(socket, '/status')
        read = status === undefined ? 0 : (JSON.parse(status.body) as { read: number }).read
      }
      const from = Date.now()
      process.kill(pid ?? 0, 'SIGTERM')
      while (existsSync(`/proc/${pid}`) && !/^State:\s+Z/m.test(statusOf(pid ?? 0)) && Date.now() - from < 10_000)
        await new Promise((resolve) => {
          setTimeout(resolve, 20)
        })
      expect(Date.now() - from).toBeLessThan(1500 + 500)
    } finally {
      process.kill(-(child.pid ?? 0), 'SIGKILL')
    }
  }, 40_000)
})

function statusOf(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/status`, 'utf8')
  } catch {
    return 'State: Z'
  }
}
function descendant(root: number, name: string): number | undefined {
  const parents = new Map<number, number>()
  const commands = new Map<number, string>()
  for (const entry of readdirSync('/proc')) {
    if (!/^\d+$/.test(entry)) continue
    try {
      parents.set(Number(entry), Number(/^PPid:\s+(\d+)/m.exec(readFileSync(`/proc/${entry}/status`, 'utf8'))?.[1]))
      commands.set(Number(entry), readFileSync(`/proc/${entry}/cmdline`, 'utf8').split('\0').slice(0, 4).join(' '))
    } catch {
      /* it has gone meanwhile */
    }
  }
  for (const [pid, command] of commands) {
    if (!command.includes(name) || !command.includes('node')) continue
    for (let at: number | undefined = pid; at !== undefined && at > 1; at = parents.get(at)) if (at === root) return pid
  }
  return undefined
}

describe('state', () => {
  const line = (): string[] => [
    '--from',
    'generate:',
    'count=10',
    '--to',
    `file:${join(folder, 'out.ndjson')}`,
    ...state(),
  ]

  test('a state folder that others can write to is refused with exit 2 and told how to mend it', async () => {
    mkdirSync(join(folder, 'state'), { mode: 0o700 })
    const first = await manifold(line())
    expect({ code: first.code, stderr: first.stderr }).toEqual({ code: 0, stderr: '' })
    const flow = join(folder, 'state', readdirSync(join(folder, 'state'))[0] ?? '')
    chmodSync(flow, 0o777)
    const { code, stderr } = await manifold(line())
    expect(code).toBe(2)
    expect(stderr).toContain(flow)
  })

  test('a symlink planted below the state is not followed', async () => {
    await manifold(line())
    const flow = join(folder, 'state', readdirSync(join(folder, 'state'))[0] ?? '', '0')
    const elsewhere = join(folder, 'victim')
    writeFileSync(elsewhere, 'precious')
    rmSync(join(flow, 'flow'))
    symlinkSync(elsewhere, join(flow, 'flow'))
    const { code, stderr } = await manifold(line())
    expect(code).toBe(2)
    expect(stderr).toMatch(/link/)
    expect(readFileSync(elsewhere, 'utf8')).toBe('precious')
  })

  test('a second process on the same flow is refused with exit 75 and the pid of the first', async () => {
    const feed = await startFeed({ perSecond: 100 })
    const args = ['--from', feed.url, '--to', `file:${join(folder, 'out.ndjson')}`, ...state()]
    const first = start(args)
    try {
      while (feed.connections.length === 0)
        await new Promise((resolve) => {
          setTimeout(resolve, 20)
        })
      const { code, stderr } = await manifold(args)
      expect(code).toBe(75)
      expect(stderr).toContain(String(first.pid))
    } finally {
      first.kill('SIGTERM')
      await first.done
      await feed.stop()
    }
  })
})

describe('a full disk', () => {
  test('records wait for space, none is lost, and it goes on when there is some', async () => {
    const disk = smallDisk()
    if (disk === undefined) return
    try {
      // A sink that does not move for a while: the spool has to fill up.
      const fifo = join(folder, 'fifo')
      execFileSync('mkfifo', [fifo])
      const running = start([
        '--from',
        'generate:',
        'count=200000',
        'size=200',
        '--to',
        `file:${fifo}`,
        '--spool',
        join(disk, 'spool'),
        '--disk-reserve',
        '1MiB',
        ...state(),
        '--log-level',
        'info',
      ])
      while (!running.stderr().includes('is full, appends wait') && running.child.exitCode === null)
        await new Promise((resolve) => {
          setTimeout(resolve, 20)
        })
      const out = execFileSync('sh', ['-c', `wc -l < "${fifo}"`], { timeout: 60_000 })
        .toString()
        .trim()
      const { code, stderr } = await running.done
      expect({ code, out, stderr: code === 0 ? '' : stderr }).toEqual({ code: 0, out: '200000', stderr: '' })
    } finally {
      execFileSync('umount', ['-l', disk])
    }
  }, 90_000)
})

describeWith('s3', 'an object store that refuses', () => {
  let server: S3Server
  let bucket: Bucket
  beforeAll(async () => {
    server = await startS3()
    bucket = await Bucket.make(server)
  })
  afterAll(async () => {
    bucket.close()
    await server.stop()
  })
  const line = (name: string, ...words: string[]): string[] => [
    '--from',
    '-',
    '--to',
    `s3://${name}/t`,
    ...words,
    'region=us-east-1',
    `endpoint=${server.endpoint}`,
    'path-style',
    'access-key-id={env:KEY}',
    'secret-access-key={env:SECRET}',
    ...state(),
  ]
  const env = (): NodeJS.ProcessEnv => ({ KEY: server.accessKey, SECRET: server.secretKey })

  test('no such bucket: exit 4, the bucket named, and what was read stays in the spool until there is one', async () => {
    const { code, stderr } = await manifold(line('no-such-bucket-here'), { env: env(), input: 'one\ntwo\n' })
    expect(code).toBe(4)
    expect(stderr).toMatch(/no-such-bucket-here/)
    expect(stderr.trim().split('\n').length).toBeLessThanOrEqual(10)
    expect(stderr).not.toMatch(/\n\s+at /)
    expect(stderr).toMatch(/2 records? (?:are|is) safe in the spool/)
    const made = await Bucket.make(server, 'no-such-bucket-here')
    try {
      const again = await manifold(line(made.name), { env: env(), input: 'three\n' })
      expect({ code: again.code, stderr: again.stderr }).toEqual({ code: 0, stderr: '' })
      expect((await made.all()).map(({ bytes }) => bytes.toString()).join('')).toBe('one\ntwo\nthree\n')
    } finally {
      made.close()
    }
  })

  test('a full disk does not prevent compressing and uploading what it holds: all of it arrives', async () => {
    const disk = smallDisk()
    if (disk === undefined) return
    try {
      server.freeze()
      const running = start(
        [
          '--from',
          'generate:',
          'count=100000',
          'size=200',
          '--to',
          `s3://${bucket.name}/full`,
          'compression=gzip',
          'commit-file-size=1MiB',
          'region=us-east-1',
          `endpoint=${server.endpoint}`,
          'path-style',
          'access-key-id={env:KEY}',
          'secret-access-key={env:SECRET}',
          '--spool',
          join(disk, 'spool'),
          '--disk-reserve',
          '0',
          ...state(),
          '--log-level',
          'info',
        ],
        { env: env() },
      )
      while (!running.stderr().includes('is full, appends wait') && running.child.exitCode === null)
        await new Promise((resolve) => {
          setTimeout(resolve, 20)
        })
      server.thaw()
      const { code, stderr } = await running.done
      expect({ code, stderr: code === 0 ? '' : stderr }).toEqual({ code: 0, stderr: '' })
      const numbers = (await bucket.all('full/')).flatMap(({ bytes }) =>
        gunzipSync(bytes)
          .toString()
          .trimEnd()
          .split('\n')
          .map((text) => (JSON.parse(text) as { seq: number }).seq),
      )
      expect(numbers).toEqual(Array.from({ length: 100_000 }, (_, i) => i + 1))
    } finally {
      server.thaw()
      execFileSync('umount', ['-l', disk])
    }
  }, 90_000)

  test('wrong credentials: exit 4, said so, without the secret', async () => {
    const { code, stderr } = await manifold(line(bucket.name), {
      env: { KEY: server.accessKey, SECRET: 'canary-secret-value' },
      input: 'one\ntwo\n',
    })
    expect(code).toBe(4)
    expect(stderr).toMatch(/credential|signature|secret|access key/i)
    expect(stderr).not.toContain('canary-secret-value')
  })

  test('SIGTERM under load with the store hung: out within the grace, all of it safe, and delivered by the next run', async () => {
    const running = start([...line(bucket.name, 'commit-file-size=1MiB'), '--grace', '2s'], {
      env: env(),
      input: 'open',
    })
    let written = 0
    const pump = setInterval(() => {
      let block = ''
      for (let i = 0; i < 1000; i++) block += `${String(++written).padStart(200, '0')}\n`
      running.child.stdin?.write(block)
    }, 20)
    void running.done.then(() => {
      clearInterval(pump)
    })
    running.child.stdin?.on('error', () => undefined)
    while (running.child.exitCode === null && (await bucket.keys()).length === 0)
      await new Promise((resolve) => {
        setTimeout(resolve, 50)
      })
    server.freeze()
    // More than the uploads under way can hold.
    for (const before = written; written < before + 30_000 && running.child.exitCode === null; )
      await new Promise((resolve) => {
        setTimeout(resolve, 20)
      })
    const from = Date.now()
    running.kill('SIGTERM')
    const [code, signal] = await new Promise<[number | null, NodeJS.Signals | null]>((resolve) => {
      running.child.once('exit', (...end) => {
        resolve(end)
      })
    })
    const took = Date.now() - from
    clearInterval(pump)
    running.child.stdin?.destroy()
    server.thaw()
    expect({ code, signal }).toEqual({ code: 0, signal: null })
    expect(took).toBeLessThan(2500)
    const next = await manifold([...line(bucket.name)], { env: env(), input: '' })
    expect({ code: next.code, stderr: next.stderr }).toEqual({ code: 0, stderr: '' })
    const numbers = (await bucket.all('t/'))
      .flatMap(({ bytes }) => bytes.toString().trim().split('\n').map(Number))
      .sort((a, b) => a - b)
    expect(numbers).toEqual(Array.from({ length: numbers.length }, (_, i) => i + 1))
  }, 60_000)
})
