/** Tests peers that announce larger frames than negotiated: they are refused before the frame is buffered. */
import { createServer, type AddressInfo } from 'node:net'
import { DeliveryReader } from '../../../src/endpoints/amqp/deliveries'
import { openSource } from './support'

const MIB = 1024 * 1024

function frame(type: number, size: number, payload = Buffer.alloc(0)): Buffer {
  const head = Buffer.alloc(7)
  head[0] = type
  head.writeUInt16BE(1, 1)
  head.writeUInt32BE(size, 3)
  return Buffer.concat([head, payload, Buffer.from([0xce])])
}

test.each([MIB, 50 * MIB, 2 ** 31 - 1])('a first frame of %d bytes is no AMQP, and is not waited for', async (size) => {
  let sent = 0
  const server = createServer((socket) => {
    socket.on('error', () => undefined)
    socket.once('data', () => {
      socket.write(frame(1, size).subarray(0, 7))
      const block = Buffer.alloc(64 * 1024)
      const more = (): void => {
        while (!socket.destroyed && sent < 40 * MIB) {
          sent += block.length
          if (!socket.write(block)) {
            socket.once('drain', more)
            return
          }
        }
      }
      more()
    })
  })
  await new Promise<void>((resolve) => {
    server.listen(0, '127.0.0.1', resolve)
  })
  try {
    const error: unknown = await openSource(`amqp://127.0.0.1:${(server.address() as AddressInfo).port}`, {
      queue: 'q',
    }).then(
      () => undefined,
      (reason: unknown) => reason,
    )
    expect((error as Error).message).toMatch(/does not speak AMQP 0-9-1/)
    expect(sent).toBeLessThan(10 * MIB)
  } finally {
    await new Promise((resolve) => {
      server.close(resolve)
    })
  }
})

test('a message that no broker can hold ends the connection at its header', () => {
  const deliver = Buffer.alloc(4 + 1 + 1 + 8 + 1 + 1 + 1)
  deliver.writeUInt32BE((60 << 16) | 60, 0)
  const header = (bytes: bigint): Buffer => {
    const payload = Buffer.alloc(14)
    payload.writeUInt16BE(60, 0)
    payload.writeBigUInt64BE(bytes, 4)
    return frame(2, payload.length, payload)
  }
  const taking = (bytes: bigint): number =>
    new DeliveryReader(1, () => undefined).take(Buffer.concat([frame(1, deliver.length, deliver), header(bytes)]))
  expect(taking(512n * 1024n * 1024n)).toBeGreaterThan(0)
  expect(() => taking(2n ** 40n)).toThrow(/a message of 1099511627776 bytes/)
})
