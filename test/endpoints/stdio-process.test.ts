import { spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import * as fs from 'node:fs'
import * as net from 'node:net'
import * as os from 'node:os'
import * as path from 'node:path'
import { cleanEnv, LAUNCHER, manifold } from '../support/manifold'

let folder: string
beforeEach(() => {
  folder = fs.mkdtempSync(path.join(os.tmpdir(), 'manifold-stdio-'))
})
afterEach(() => {
  fs.rmSync(folder, { recursive: true })
})
const at = (name: string): string => path.join(folder, name)

test('one socket may be stdin and stdout: what comes in goes out, to the end of its half', async () => {
  const server = net.createServer({ allowHalfOpen: true, pauseOnConnect: true }, (socket) => {
    const child = spawn(LAUNCHER, ['--from', '-', '--to', '-'], { env: cleanEnv(), stdio: [socket, socket, 'inherit'] })
    child.once('exit', () => {
      socket.destroy()
    })
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const client = net.connect({
    port: (server.address() as net.AddressInfo).port,
    host: '127.0.0.1',
    allowHalfOpen: true,
  })
  const text = Array.from({ length: 200_000 }, (_, i) => `line ${i}\n`).join('')
  client.end(text)
  const parts: Buffer[] = []
  for await (const part of client) parts.push(part as Buffer)
  server.close()
  expect(Buffer.concat(parts).toString()).toBe(text)
})

test('a terminal is read until its end is typed, and written to', () => {
  // `script` gives the program a terminal of its own.
  if (spawnSync('script', ['--version']).error !== undefined) {
    console.warn('skipped: there is no script(1) here')
    return
  }
  const run = spawnSync(
    'bash',
    [
      '-c',
      `(sleep 1; printf 'typed\\n'; sleep 0.3; printf '\\004'; sleep 1) | script -qec '"${LAUNCHER}" --from - --to - 2>/dev/null' /dev/null`,
    ],
    { env: cleanEnv(), timeout: 20_000 },
  )
  // Once as the terminal's echo, once as the record.
  expect(run.stdout.toString().match(/typed/g)).toHaveLength(2)
  expect(run.status).toBe(0)
})

test('output that is appended to a file goes after what others wrote in between', async () => {
  const out = fs.openSync(at('out'), 'a')
  fs.writeSync(out, 'first\n')
  await manifold(['--from', '-', '--to', '-'], { input: 'second\n', stdout: out })
  fs.writeSync(out, 'third\n')
  fs.closeSync(out)
  expect(fs.readFileSync(at('out'), 'utf8')).toBe('first\nsecond\nthird\n')
})

test('a dead letter is redelivered by an ordinary run', async () => {
  fs.writeFileSync(at('in'), 'short\nmuch too long\nend\n')
  const first = await manifold([
    '--from',
    `file:${at('in')}`,
    'framing=lines',
    'max-record=8',
    '--to',
    '-',
    '--dead-letter',
    `file:${at('dead')}`,
  ])
  expect({ code: first.code, text: first.stdout.toString() }).toEqual({ code: 5, text: 'short\nend\n' })
  const again = await manifold(['--from', `file:${at('dead')}`, 'framing=envelope', '--to', '-'])
  expect({ code: again.code, text: again.stdout.toString() }).toEqual({ code: 0, text: 'much too long\n' })
})

test('what a killed run had not confirmed comes again, nothing is missing, and no record is torn', async () => {
  const lines = Array.from({ length: 300_000 }, (_, i) => `${i} ${'x'.repeat(i % 90)}\n`)
  fs.writeFileSync(at('in'), lines.join(''))
  const args = ['--from', `file:${at('in')}`, '--to', at('out'), '--state', at('state'), '--memory', '1MiB']
  for (const wait of [250, 330, 410]) {
    const child = spawn(LAUNCHER, args, { env: cleanEnv(), stdio: 'ignore' })
    setTimeout(() => {
      child.kill('SIGKILL')
    }, wait)
    await once(child, 'exit')
  }
  expect((await manifold(args)).code).toBe(0)
  const written = fs.readFileSync(at('out'), 'utf8').split('\n').slice(0, -1)
  const known = new Set(lines.map((line) => line.slice(0, -1)))
  expect(written.filter((line) => !known.has(line))).toEqual([])
  expect(new Set(written).size).toBe(lines.length)
})
