import { spawnSync } from 'node:child_process'
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { freePort, release, startProcess } from '../../scripts/services/process'
import { until } from '../support/until'

const reservation = (port: number): string =>
  path.join(os.tmpdir(), `manifold-ports-${os.userInfo().uid}`, String(port))
/** Chooses the same port again and again, then others. */
function choosing(times: number): jest.SpyInstance {
  const first = Math.random()
  const random = jest.spyOn(Math, 'random')
  for (let n = 0; n < times; n++) random.mockReturnValueOnce(first)
  return random
}
afterEach(() => {
  jest.restoreAllMocks()
})

test('a port that was chosen is given to nobody else before anybody listens on it', async () => {
  choosing(2)
  const ports = [await freePort(), await freePort()]
  expect(new Set(ports).size).toBe(2)
  release(ports)
  expect(ports.filter((port) => fs.existsSync(reservation(port)))).toEqual([])
})

test('a port of a process that is gone can be had again', async () => {
  choosing(2)
  const port = await freePort()
  const { pid } = spawnSync(process.execPath, ['-e', ''])
  fs.writeFileSync(reservation(port), String(pid))
  expect(await freePort()).toBe(port)
  release([port])
})

test('a server that ends by itself says so, with what it wrote; one that is told to end does not', async () => {
  const said: string[] = []
  jest.spyOn(process.stderr, 'write').mockImplementation((text) => {
    said.push(String(text))
    return true
  })
  const start = (): Promise<{ readonly port: number; kill(): Promise<void>; stop(): Promise<void> }> => {
    const flag = path.join(fs.mkdtempSync(path.join(os.tmpdir(), 'manifold-process-')), 'up')
    const script =
      "require('http').createServer((_, response) => { response.end(); setTimeout(() => { console.error('out of luck'); process.exit(3) }, 10) })"
    return startProcess({
      name: 'ender',
      command: (port) => ({
        file: process.execPath,
        args: ['-e', `${script}.listen(${port}, '127.0.0.1', () => require('fs').writeFileSync('${flag}', ''))`],
      }),
      ready: () => Promise.resolve(fs.existsSync(flag)),
      gone: () => {
        fs.rmSync(path.dirname(flag), { recursive: true })
      },
    })
  }
  const [ends, told] = await Promise.all([start(), start()])
  await told.kill()
  await told.stop()
  expect(said).toEqual([])
  await fetch(`http://127.0.0.1:${ends.port}/`)
  await until(() => said.length > 0, 'said')
  await ends.stop()
  expect(said).toEqual([
    expect.stringMatching(
      new RegExp(`^ender on port ${ends.port} \\(pid \\d+\\) ended by itself, code 3: out of luck\\n$`),
    ),
  ])
})
