import { execFileSync, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { available, startS3 } from './s3'
import { describeWith } from './describe-with'

const script = path.join(__dirname, '..', '..', 'scripts', 'services.js')

describe('scripts/services.js', () => {
  it('says what it cannot install and why, and fails where a service cannot be had', () => {
    const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'manifold-services-'))
    try {
      const { status, stdout, stderr } = spawnSync(
        process.execPath,
        [script, 'install', '--need', 's3,kafka,kinesis'],
        { env: { PATH: folder, HOME: folder, MANIFOLD_SERVICES: path.join(folder, 'cache') }, encoding: 'utf8' },
      )
      expect(stdout).toMatch(
        /versitygw: skipped: no go in PATH\nminio: skipped: no go in PATH\nmoto: skipped: no python3.*\nkafka: skipped: no java in PATH\nkinesalite: skipped: no npm in PATH\n/,
      )
      expect(stderr).toBe('cannot be had here: s3, kafka, kinesis\n')
      expect(status).toBe(1)
    } finally {
      fs.rmSync(folder, { recursive: true })
    }
  })
  it('names the services it knows', () => {
    const { status, stderr } = spawnSync(process.execPath, [script, 'install', '--need', 'tape'], { encoding: 'utf8' })
    expect(stderr).toBe(
      'there is no service tape: s3, kafka, kcat, rabbitmq, kinesis, kinesis-fanout, dynamodb, kcl, zsh, fish, faketime can be had\n',
    )
    expect(status).toBe(1)
  })
})

describeWith('s3', 'a server of the tests', () => {
  it('is there at once where it was installed before', () => {
    expect(
      execFileSync(process.execPath, [script, 'install', '--only', available()[0]!], { encoding: 'utf8' }),
    ).toMatch(/: there \(/)
  })
  const withVersitygw = available().includes('versitygw') ? it : it.skip
  withVersitygw('is stopped where what belongs into it cannot be made', () => {
    const dir = fs.mkdtempSync(path.join(os.tmpdir(), 'manifold-services-'))
    try {
      // A file stands where the bucket's folder would.
      fs.mkdirSync(path.join(dir, 'root'))
      fs.writeFileSync(path.join(dir, 'root', 'lake'), '')
      const args = [script, 'start', 's3', '--kind', 'versitygw', '--dir', dir]
      const { status, stdout } = spawnSync(process.execPath, args, { encoding: 'utf8', timeout: 20_000 })
      expect({ status, stdout }).toEqual({ status: 1, stdout: '' })
      const left = spawnSync('pgrep', ['-f', dir], { encoding: 'utf8' })
      expect(left.stdout).toBe('')
    } finally {
      fs.rmSync(dir, { recursive: true })
    }
  })
  it('keeps port and data over kill and restart, and leaves neither process nor folder', async () => {
    const server = await startS3(available()[0])
    const { endpoint, pid } = server
    await server.kill()
    expect(() => process.kill(pid!, 0)).toThrow('ESRCH')
    await server.restart()
    expect(server.endpoint).toBe(endpoint)
    const again = server.pid!
    expect(again).not.toBe(pid)
    server.freeze()
    await server.stop()
    expect(() => process.kill(again, 0)).toThrow('ESRCH')
    expect(fs.existsSync(server.dir!)).toBe(false)
  })
  // Where the kernel can be asked for it.
  const boundIt = fs.existsSync('/usr/bin/setpriv') ? it : it.skip
  boundIt(
    'dies with the process that started it, and its folder goes with the next one, where that process was killed',
    async () => {
      const starter = spawn(
        process.execPath,
        [
          '-e',
          "require('./scripts/services/s3').startS3({ kind: process.argv[1] }).then(({ pid, dir }) => { console.log(JSON.stringify({ pid, dir })) })",
          available()[0]!,
        ],
        { cwd: path.join(__dirname, '..', '..'), stdio: ['ignore', 'pipe', 'inherit'] },
      )
      const [told] = (await once(starter.stdout, 'data')) as [Buffer]
      const { pid, dir } = JSON.parse(String(told)) as { pid: number; dir: string }
      try {
        process.kill(pid, 0)
        const ended = once(starter, 'exit')
        starter.kill('SIGKILL')
        // Until then it counts as a starter that lives.
        await ended
        // The server has ended once its new parent has taken note of it.
        const gone = () => {
          try {
            return /^State:\s+Z/m.test(fs.readFileSync(`/proc/${pid}/status`, 'utf8'))
          } catch {
            return true
          }
        }
        while (!gone()) await new Promise((resolve) => setTimeout(resolve, 10))
        await (await startS3(available()[0])).stop()
        expect(fs.existsSync(dir)).toBe(false)
      } finally {
        fs.rmSync(dir, { recursive: true, force: true })
      }
    },
  )
})
