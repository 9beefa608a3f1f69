/**
 * Tracks which published messages are confirmed, refused or returned.
 *
 * A channel counts published messages from 1, and the broker confirms single numbers or all up to one. A message that
 * reached no queue is returned before its confirmation, in the order of publishing, but without its number
 * (https://www.rabbitmq.com/docs/publishers#unroutable). So it is recognised by its content.
 */
export interface PublishedMessage {
  readonly body: Buffer
  readonly id: string | undefined
}
export interface PublishResult {
  readonly nacked: readonly number[]
  readonly returned: readonly { readonly index: number; readonly why: string }[]
}

interface PendingPublish {
  readonly first: number
  readonly sent: readonly PublishedMessage[]
  readonly state: Uint8Array
  firstUnconfirmed: number
  unconfirmed: number
  readonly returned: Map<number, string>
  settle(verdict: PublishResult): void
  fail(error: Error): void
}
const ACKED = 1,
  NACKED = 2

export class Confirms {
  private readonly pending: PendingPublish[] = []
  private next = 1
  /** The number behind that of the last returned message. */
  private nextReturned = 1
  private closedWith: Error | undefined

  /** Counts the messages that the broker has neither confirmed nor refused. */
  get unconfirmed(): number {
    return this.pending.reduce((sum, { unconfirmed }) => sum + unconfirmed, 0)
  }

  /** Resolves when the broker has confirmed or refused each message. It has to be called in the order of publishing. */
  waitFor(sent: readonly PublishedMessage[]): Promise<PublishResult> {
    return new Promise((resolve, reject) => {
      if (this.closedWith !== undefined) {
        reject(this.closedWith)
        return
      }
      this.pending.push({
        first: this.next,
        sent,
        state: new Uint8Array(sent.length),
        firstUnconfirmed: 0,
        unconfirmed: sent.length,
        returned: new Map(),
        settle: resolve,
        fail: reject,
      })
      this.next += sent.length
    })
  }

  /** Ends all waits, because the channel is gone and the fate of the messages will never be known. */
  end(error: Error): void {
    this.closedWith = error
    for (const flight of this.pending.splice(0)) flight.fail(error)
  }

  confirmed(tag: number, multiple: boolean, acked: boolean): void {
    const mark = acked ? ACKED : NACKED
    for (const flight of this.pending) {
      const index = tag - flight.first
      if (index < 0) break
      if (multiple)
        for (let at = flight.firstUnconfirmed; at <= index && at < flight.sent.length; at++) markAs(flight, at, mark)
      else if (index < flight.sent.length) {
        markAs(flight, index, mark)
        break
      }
    }
    for (let at = 0; at < this.pending.length; ) {
      const flight = this.pending[at]
      if (flight === undefined || flight.unconfirmed > 0) {
        at++
        continue
      }
      this.pending.splice(at, 1)
      flight.settle({
        nacked: [...flight.state.keys()].filter((index) => flight.state[index] === NACKED),
        returned: [...flight.returned].map(([index, why]) => ({ index, why })),
      })
    }
  }

  /** Marks a message as returned, and tells whether it is one of the pending ones. */
  returned(body: Buffer, id: string | undefined, why: string): boolean {
    return this.markReturned(body, id, why, this.nextReturned) || this.markReturned(body, id, why, 1)
  }

  private markReturned(body: Buffer, id: string | undefined, why: string, from: number): boolean {
    for (const flight of this.pending) {
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
        this.nextReturned = flight.first + index + 1
        return true
      }
    }
    return false
  }
}

function markAs(flight: PendingPublish, at: number, mark: number): void {
  if (flight.state[at] === 0) {
    flight.state[at] = mark
    flight.unconfirmed--
  }
  while (flight.firstUnconfirmed < flight.sent.length && flight.state[flight.firstUnconfirmed] !== 0)
    flight.firstUnconfirmed++
}
