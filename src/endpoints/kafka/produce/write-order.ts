/** Order of writes, and a limit of requests in flight. */

export interface OrderedWrite {
  /** All who entered before are prepared. */
  readonly mayPrepare: Promise<void>
  prepared(): void
  /** All who entered before have sent. */
  readonly maySend: Promise<void>
  sent(): void
  /** In any case, at the end. */
  end(): void
}

/**
 * Lets writes prepare one after the other and send one after the other, each in the order of entering. The work between
 * the two may overlap.
 */
export class WriteOrder {
  private lastPrepared: Promise<void> = Promise.resolve()
  private lastSent: Promise<void> = Promise.resolve()

  enter(): OrderedWrite {
    const { lastPrepared: mayPrepare, lastSent: maySend } = this
    const { promise: isPrepared, resolve: prepared } = Promise.withResolvers<undefined>()
    const { promise: isSent, resolve: sent } = Promise.withResolvers<undefined>()
    this.lastPrepared = mayPrepare.then(() => isPrepared)
    this.lastSent = maySend.then(() => isSent)
    return {
      mayPrepare,
      maySend,
      prepared: () => {
        prepared(undefined)
      },
      sent: () => {
        sent(undefined)
      },
      end: () => {
        prepared(undefined)
        sent(undefined)
      },
    }
  }
}

/** So many at once; the others wait in line. */
export class Semaphore {
  private readonly waiters: (() => void)[] = []
  constructor(private free: number) {}

  /** Resolves with what gives the place back. */
  async acquire(): Promise<() => void> {
    if (this.free > 0) this.free--
    else
      await new Promise<void>((resolve) => {
        this.waiters.push(resolve)
      })
    return () => {
      const next = this.waiters.shift()
      if (next === undefined) this.free++
      else next()
    }
  }
}
