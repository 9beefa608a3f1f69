/** Tests that a server may ping as often as it likes, even while this process is stopped: no ping ends a connection. */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Receipt } from '../../src/core/accounting/receipt'
import { makeEndpointContext, makeSourceContext } from '../support/context'
import { start } from '../support/manifold'
import { accept, frame, handled, makeSink, makeSource, startPeer, startRaw, take, until } from './ws/peer'

const open: { close(): Promise<void> }[] = []
afterEach(async () => {
  for (const thing of open.splice(0).reverse()) await thing.close()
})
function kept<T extends { close(): Promise<void> }>(thing: T): T {
  open.push(thing)
  return thing
}

const pings = (from: number, to: number): Buffer =>
  Buffer.concat(Array.from({ length: to - from + 1 }, (_, i) => frame(9, Buffer.from(String(from + i)))))

test('of a thousand pings in one burst the latest is answered, and the connection goes on', async () => {
  const answers: string[] = []
  const peer = kept(
    await startPeer({
      connected: (socket) => {
        socket.on('pong', (data) => {
          answers.push(data.toString())
        })
      },
    }),
  )
  const source = kept(await makeSource(peer.url))
  const { ctx, told } = makeSourceContext()
  await source.open(ctx)
  const [socket] = peer.sockets
  const wire = (socket as unknown as { _socket: { write(bytes: Buffer): void } })._socket
  wire.write(Buffer.concat([pings(1, 1000), frame(1, Buffer.from('a record'))]))
  expect(await take(source, 1)).toEqual(['a record'])
  await until(() => answers.includes('1000'), 'the answer to the last ping')
  // The next one is answered as well, and a single one as any.
  wire.write(pings(1001, 1001))
  await until(() => answers.includes('1001'), 'the answer to a single ping')
  expect(peer.sockets).toHaveLength(1)
  expect(socket?.readyState).toBe(socket?.OPEN)
  expect(told.gaps).toEqual([])
})

test('a sink answers the latest of many pings, and its connection goes on', async () => {
  const answers: string[] = []
  const peer = kept(
    await startPeer({
      connected: (socket) => {
        socket.on('pong', (data) => {
          answers.push(data.toString())
        })
      },
    }),
  )
  const sink = kept(await makeSink(peer.url))
  await sink.open(makeEndpointContext().ctx)
  ;(peer.sockets[0] as unknown as { _socket: { write(bytes: Buffer): void } })._socket.write(pings(1, 1000))
  await until(() => answers.includes('1000'), 'the answer to the last ping')
  expect(peer.sockets[0]?.readyState).toBe(peer.sockets[0]?.OPEN)
})

test('a message in as many small fragments as its size allows is one record', async () => {
  const fragments = 40_000
  const peer = kept(
    await startRaw((socket) => {
      void accept(socket).then(() => {
        socket.write(
          Buffer.concat([
            frame(1, Buffer.alloc(400, 'a'), false),
            ...Array.from({ length: fragments - 2 }, () => frame(0, Buffer.alloc(400, 'a'), false)),
            frame(0, Buffer.alloc(400, 'a')),
          ]),
        )
      })
    }),
  )
  const source = kept(await makeSource(peer.url))
  await source.open(makeSourceContext().ctx)
  expect((await take(source, 1))[0]?.length).toBe(fragments * 400)
})

test('pings and records that pile up while the process is stopped end no connection and leave no gap', async () => {
  const folder = mkdtempSync(join(tmpdir(), 'manifold-pings-'))
  const peer = kept(await startPeer())
  const running = start([
    '--from',
    peer.url,
    '--to',
    join(folder, 'out'),
    '--name',
    'pings',
    '--state',
    join(folder, 'state'),
    '--count',
    '600',
    '--receipt',
    join(folder, 'receipt'),
  ])
  try {
    await until(() => peer.sockets.length === 1, 'the connection')
    await handled(peer.sockets[0])
    running.kill('SIGSTOP')
    for (let i = 0; i < 600; i++) {
      peer.sockets[0]?.send(`record ${i}`)
      peer.sockets[0]?.ping(String(i))
    }
    running.kill('SIGCONT')
    const { code, stderr } = await running.done
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' })
    expect(readFileSync(join(folder, 'out'), 'utf8').trimEnd().split('\n')).toEqual(
      Array.from({ length: 600 }, (_, i) => `record ${i}`),
    )
    expect(peer.sockets).toHaveLength(1)
    expect((JSON.parse(readFileSync(join(folder, 'receipt'), 'utf8')) as Receipt).gapCount).toBe(0)
  } finally {
    running.kill('SIGCONT')
    running.kill('SIGKILL')
    await running.done
    rmSync(folder, { recursive: true, force: true })
  }
})
