/** Tests a foreign peer: Python's `websockets`, installed by scripts/services/websockets.sh. */
import { spawn, spawnSync, type ChildProcessWithoutNullStreams } from 'node:child_process'
import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { LineBatch } from '../../src/core/batch'
import { makeEndpointContext, makeSourceContext } from '../support/context'
import { makeSink, makeSource, take, takeUntilThrow } from './ws/peer'

const script = join(__dirname, '../../scripts/services/websockets.sh')
const installed = spawnSync(script, ['install'], { encoding: 'utf8', timeout: 110_000 })
const python = spawnSync(script, ['python'], { encoding: 'utf8' }).stdout.trim()
const missing =
  python === ''
    ? `Python's websockets cannot be had here: ${installed.stderr.trim().split('\n').at(-1) ?? 'unknown'}`
    : undefined
if (missing !== undefined && process.env['MANIFOLD_REQUIRE_SERVICES'] === '1') throw new Error(missing)
if (missing !== undefined) process.stderr.write(`SKIPPED: a foreign WebSocket peer: ${missing}\n`)
const describePeer = missing === undefined ? describe : describe.skip

interface Foreign {
  readonly url: string
  line(): Promise<string>
  close(): Promise<void>
}
const running: Foreign[] = []
afterEach(async () => {
  for (const one of running.splice(0)) await one.close()
})

async function startForeign(...args: string[]): Promise<Foreign> {
  const child: ChildProcessWithoutNullStreams = spawn(python, [join(__dirname, 'ws/foreign.py'), ...args])
  let errors = ''
  child.stderr.on('data', (text: Buffer) => {
    errors += text.toString()
  })
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]()
  const line = async (): Promise<string> => {
    const next = await lines.next()
    if (next.done === true) throw new Error(`the peer ended: ${errors}`)
    return next.value
  }
  const foreign: Foreign = {
    url: `ws://127.0.0.1:${await line()}`,
    line,
    close: async () => {
      if (child.exitCode !== null || child.signalCode !== null) return
      const exited = once(child, 'exit')
      child.kill('SIGKILL')
      await exited
    },
  }
  running.push(foreign)
  return foreign
}

describePeer(missing === undefined ? 'a foreign peer' : `a foreign peer (skipped: ${missing})`, () => {
  test.each([[false], [true]])(
    'a feed of text, binary and fragments arrives complete, and its close is told (compression %s)',
    async (compression) => {
      const peer = await startForeign('feed', '5000')
      const source = await makeSource(peer.url, { compression })
      await source.open(makeSourceContext().ctx)
      const got: string[] = []
      const error = await takeUntilThrow(source, got)
      await source.close()
      expect(got).toHaveLength(5000)
      got.forEach((text, i) => {
        if (text !== Buffer.from(`${i + 1}:${'é'.repeat((i + 1) % 50)}`).toString('latin1'))
          throw new Error(`record ${i + 1} is ${text}`)
      })
      expect(error.message).toBe('closed by the server with 1001 (going away): that was all')
    },
    60_000,
  )

  test('a sink with barrier delivers every byte', async () => {
    const peer = await startForeign('sink')
    const sink = await makeSink(peer.url, { barrier: true })
    await sink.open(makeEndpointContext().ctx)
    const digest = createHash('sha256')
    for (let block = 0; block < 20; block++) {
      const bytes = Buffer.from(
        Array.from({ length: 1000 }, (_, i) => `${block}/${i} ${'x'.repeat((i * 7) % 400)}\n`).join(''),
      )
      digest.update(bytes)
      await sink.write(
        {
          id: String(block),
          attempt: 1,
          payload: new LineBatch([bytes], 1000),
          origin: () => {
            throw new Error('not asked for')
          },
        },
        AbortSignal.timeout(20_000),
      )
    }
    await sink.close()
    expect(await peer.line()).toBe(`20000 ${digest.digest('hex')}`)
  }, 60_000)

  test('a killed peer is a disconnect, and so is each opening while it is away', async () => {
    const peer = await startForeign('echo')
    const source = await makeSource(peer.url, { send: ['first'] })
    const { ctx, told } = makeSourceContext()
    await source.open(ctx)
    expect(await take(source, 1)).toEqual(['first'])
    await peer.close()
    const error = await takeUntilThrow(source)
    expect(error.name).toBe('Disconnected')
    await source.close()
    await expect(source.open(ctx)).rejects.toThrow(/ECONNREFUSED/)
    await source.close()
    // Told when it ends, not before.
    expect(told.gaps).toEqual([])
  }, 60_000)
})
