import { once } from 'node:events'
import { connect, createServer, type AddressInfo } from 'node:net'
import { DeferredBodies } from '../../../../src/endpoints/kafka/protocol/deferred-body'

/** As the library frames a request: size, key, version, correlation id, client, then what is in the ticket's place. */
function framed(key: number, body: Buffer): Buffer {
  const head = Buffer.from('0000000000000009000000070003616263', 'hex')
  head.writeInt16BE(key, 4)
  const all = Buffer.concat([head, body])
  all.writeInt32BE(all.length - 4)
  return all
}

describe('a parked request', () => {
  it("goes out in its ticket's place, with the size of the whole; what is not parked goes out as it is", async () => {
    const received: Buffer[] = []
    const server = createServer((peer) => {
      peer.on('data', (chunk) => {
        received.push(chunk)
      })
    })
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    const socket = connect((server.address() as AddressInfo).port, '127.0.0.1')
    await once(socket, 'connect')
    const parking = new DeferredBodies()
    parking.interceptWrites(socket)
    const bodies = [
      [Buffer.from('small'), Buffer.alloc(100_000, 'a'), Buffer.from('b'), Buffer.from('c'), Buffer.alloc(5000, 'd')],
      [Buffer.from('second')],
    ]
    const [first, second] = bodies.map((parts) => parking.defer(parts)) as [Buffer, Buffer]
    // The last four bytes of another request may look like a ticket.
    const others = [framed(3, first), framed(0, Buffer.from('ffffffff', 'hex')), Buffer.from('x')]
    for (const other of others) socket.write(other)
    socket.write(framed(0, second))
    socket.write(framed(0, first))
    // Its place is taken: nothing is parked under it any more.
    socket.write(framed(0, first))
    const ended = once(socket, 'close')
    socket.end()
    socket.resume()
    await ended
    server.close()
    expect(
      Buffer.concat(received).equals(
        Buffer.concat([
          ...others,
          framed(0, Buffer.concat(bodies[1]!)),
          framed(0, Buffer.concat(bodies[0]!)),
          framed(0, first),
        ]),
      ),
    ).toBe(true)
  })
})
