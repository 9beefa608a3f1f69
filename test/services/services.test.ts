import { execFileSync, spawnSync } from 'node:child_process'
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
      const { status, stdout, stderr } = spawnSync(process.execPath, [script, 'install', '--need', 's3,kafka,kinesis'], { env: { PATH: folder, HOME: folder, MANIFOLD_SERVICES: path.join(folder, 'cache') }, encoding: 'utf8' })
      expect(stdout).toMatch(/versitygw: skipped: no go in PATH\nminio: skipped: no go in PATH\nmoto: skipped: no python3.*\nkafka: skipped: no java in PATH\nkinesalite: skipped: no npm in PATH\n/)
      expect(stderr).toBe('cannot be had here: s3, kafka, kinesis\n')
      expect(status).toBe(1)
    } finally { fs.rmSync(folder, { recursive: true }) }
  })
  it('names the services it knows', () => {
    const { status, stderr } = spawnSync(process.execPath, [script, 'install', '--need', 'tape'], { encoding: 'utf8' })
    expect(stderr).toBe('there is no service tape: s3, kafka, kcat, rabbitmq, kinesis, kinesis-fanout, dynamodb can be had\n')
    expect(status).toBe(1)
  })
})

describeWith('s3', 'a server of the tests', () => {
  it('is there at once where it was installed before', () => {
    expect(execFileSync(process.execPath, [script, 'install', '--only', available()[0]!], { encoding: 'utf8' })).toMatch(/: there \(/)
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
})
