import { Message } from '../../../src/endpoints/amqp/deliveries'
import { DeliveryBuffer } from '../../../src/endpoints/amqp/delivery-buffer'

/** Time passes by sleeping alone. */
class Time {
  at = 1000
  now(): number {
    return this.at
  }
  monotonic(): number {
    return this.now()
  }
  async sleep(ms: number, signal: AbortSignal): Promise<void> {
    signal.throwIfAborted()
    this.at += ms
    await Promise.resolve()
  }
  every(): { stop(): void } {
    throw new Error('not asked for')
  }
}
const forever = new AbortController().signal
let tag = 0
const message = (bytes: number): Message => {
  const made = new Message(Buffer.alloc(4), 0, ++tag, false)
  made.bytes = bytes
  return made
}

describe('messages that wait for the core', () => {
  const buffer = new DeliveryBuffer()
  const time = new Time()
  beforeEach(() => {
    buffer.clear()
    time.at += 1000
  })

  test('the first is given at once, what follows right after it together, and a lone one later at once again', async () => {
    buffer.push(message(300))
    expect(await buffer.linger(time, forever)).toBe(false)
    expect(buffer.take(Infinity, time.now())).toHaveLength(1)
    expect(await buffer.linger(time, forever)).toBe(false)
    buffer.push(message(300))
    const waiting = buffer.linger(time, forever)
    buffer.push(message(300))
    expect(await waiting).toBe(true)
    expect(await buffer.linger(time, forever)).toBe(false)
    expect(buffer.take(Infinity, time.now())).toHaveLength(2)
    time.at += 10
    buffer.push(message(300))
    expect(await buffer.linger(time, forever)).toBe(false)
  })

  test('where enough is there nothing is waited for; whoever ends does not wait either', async () => {
    buffer.push(message(300))
    buffer.take(Infinity, time.now())
    buffer.push(message(64 * 1024))
    expect(await buffer.linger(time, forever)).toBe(false)
    buffer.take(Infinity, time.now())
    buffer.push(message(1))
    await expect(buffer.linger(time, AbortSignal.abort(new Error('ended')))).rejects.toThrow('ended')
  })

  test('a delivery is about 1 MiB, or one larger message, and in order', () => {
    for (const bytes of [600_000, 600_000, 3_000_000, 10, 10]) buffer.push(message(bytes))
    const sizes = []
    for (;;) {
      const taken = buffer.take(Infinity, time.now())
      if (taken.length === 0) break
      sizes.push(taken.map(({ bytes }) => bytes))
    }
    expect(sizes).toEqual([[600_000], [600_000], [3_000_000], [10, 10]])
    expect(buffer.bytes).toBe(0)
  })
})
