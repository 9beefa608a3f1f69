/**
 * Which of the messages under way are confirmed, refused or returned.
 *
 * A channel counts what is published on it from 1; the broker confirms single numbers, or all up to one. A message that
 * reached no queue comes back before its confirmation, in the order of publishing, without its number
 * (https://www.rabbitmq.com/docs/publishers#unroutable): it is known by what it holds.
 */
export interface Sent {
  readonly body: Buffer
  readonly id: string | undefined
}
export interface Verdict {
  readonly nacked: readonly number[]
  readonly returned: readonly { readonly index: number; readonly why: string }[]
}

interface Flight {
  readonly first: number
  readonly sent: readonly Sent[]
  readonly state: Uint8Array
  low: number
  open: number
  readonly returned: Map<number, string>
  settle(verdict: Verdict): void
  fail(error: Error): void
}
const ACKED = 1,
  NACKED = 2

export class Confirms {
  private readonly flights: Flight[] = []
  private next = 1
  /** Number of the message after the last one that was returned. */
  private returns = 1
  private over: Error | undefined

  /** Messages that the broker has not spoken about. */
  get open(): number {
    return this.flights.reduce((sum, { open }) => sum + open, 0)
  }

  /** Resolves when the broker has spoken about each. To be called in the order of publishing. */
  await(sent: readonly Sent[]): Promise<Verdict> {
    return new Promise((resolve, reject) => {
      if (this.over !== undefined) {
        reject(this.over)
        return
      }
      this.flights.push({
        first: this.next,
        sent,
        state: new Uint8Array(sent.length),
        low: 0,
        open: sent.length,
        returned: new Map(),
        settle: resolve,
        fail: reject,
      })
      this.next += sent.length
    })
  }

  /** The channel is gone: of what is under way nothing more will be known. */
  end(error: Error): void {
    this.over = error
    for (const flight of this.flights.splice(0)) flight.fail(error)
  }

  confirmed(tag: number, multiple: boolean, acked: boolean): void {
    const mark = acked ? ACKED : NACKED
    for (const flight of this.flights) {
      const index = tag - flight.first
      if (index < 0) break
      if (multiple) for (let at = flight.low; at <= index && at < flight.sent.length; at++) set(flight, at, mark)
      else if (index < flight.sent.length) {
        set(flight, index, mark)
        break
      }
    }
    for (let at = 0; at < this.flights.length; ) {
      const flight = this.flights[at]
      if (flight === undefined || flight.open > 0) {
        at++
        continue
      }
      this.flights.splice(at, 1)
      flight.settle({
        nacked: [...flight.state.keys()].filter((index) => flight.state[index] === NACKED),
        returned: [...flight.returned].map(([index, why]) => ({ index, why })),
      })
    }
  }

  /** Whether it is one of those under way. */
  returned(body: Buffer, id: string | undefined, why: string): boolean {
    return this.find(body, id, why, this.returns) || this.find(body, id, why, 1)
  }

  private find(body: Buffer, id: string | undefined, why: string, from: number): boolean {
    for (const flight of this.flights) {
      for (let index = Math.max(0, from - flight.first); index < flight.sent.length; index++) {
        const sent = flight.sent[index]
        if (
          sent === undefined ||
          sent.id !== id ||
          flight.returned.has(index) ||
          flight.state[index] !== 0 ||
          !sent.body.equals(body)
        )
          continue
        flight.returned.set(index, why)
        this.returns = flight.first + index + 1
        return true
      }
    }
    return false
  }
}

function set(flight: Flight, at: number, mark: number): void {
  if (flight.state[at] === 0) {
    flight.state[at] = mark
    flight.open--
  }
  while (flight.low < flight.sent.length && flight.state[flight.low] !== 0) flight.low++
}
