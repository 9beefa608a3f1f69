/** A connection on loopback that a test can cut or hold up, in front of a real server. */
import { connect, createServer, type Server, type Socket } from 'node:net'
import type { AddressInfo } from 'node:net'

export class Link {
  private readonly sockets = new Set<Socket>()
  /** Each connection to the server, with the one that it answers. */
  private readonly backs = new Map<Socket, Socket>()
  private isDown = false
  private isHeld = false

  private constructor(
    private readonly server: Server,
    private readonly target: number,
  ) {
    server.on('connection', (front) => {
      this.accept(front)
    })
  }

  /** @param port where the real server listens */
  static async to(port: number): Promise<Link> {
    const server = createServer()
    await new Promise<void>((resolve) => {
      server.listen(0, '127.0.0.1', resolve)
    })
    return new Link(server, port)
  }

  get port(): number {
    return (this.server.address() as AddressInfo).port
  }

  private accept(front: Socket): void {
    if (this.isDown) {
      front.destroy()
      return
    }
    const back = connect(this.target, '127.0.0.1')
    this.backs.set(back, front)
    for (const [one, other] of [
      [front, back],
      [back, front],
    ] as const) {
      this.sockets.add(one)
      one.on('error', () => other.destroy())
      one.on('close', () => {
        this.sockets.delete(one)
        this.backs.delete(one)
        other.destroy()
      })
    }
    front.pipe(back)
    if (!this.isHeld) back.pipe(front)
  }

  /** Cuts every connection, and those that are made until `up`. */
  down(): void {
    this.isDown = true
    for (const socket of this.sockets) socket.destroy()
  }
  up(): void {
    this.isDown = false
  }

  /** The server is reached, but none of its answers arrives until `release`. */
  hold(): void {
    this.isHeld = true
    for (const back of this.backs.keys()) back.unpipe()
  }
  release(): void {
    this.isHeld = false
    for (const [back, front] of this.backs) back.pipe(front)
  }

  async close(): Promise<void> {
    this.down()
    await new Promise((resolve) => {
      this.server.close(resolve)
    })
  }
}
