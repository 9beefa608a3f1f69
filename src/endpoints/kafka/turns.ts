/** Who goes first. */

export interface Turn {
  /** All who entered before are prepared. */
  readonly toPrepare: Promise<void>
  prepared(): void
  /** All who entered before have sent. */
  readonly toSend: Promise<void>
  sent(): void
  /** In any case, at the end. */
  leave(): void
}

/**
 * Two doors in a row: whoever enters passes each in the order of entering, so that work between the doors may overlap.
 */
export class Turns {
  private lastPrepared: Promise<void> = Promise.resolve()
  private lastSent: Promise<void> = Promise.resolve()

  enter(): Turn {
    const { lastPrepared: toPrepare, lastSent: toSend } = this
    const { promise: isPrepared, resolve: prepared } = Promise.withResolvers<undefined>()
    const { promise: isSent, resolve: sent } = Promise.withResolvers<undefined>()
    this.lastPrepared = toPrepare.then(() => isPrepared)
    this.lastSent = toSend.then(() => isSent)
    return {
      toPrepare,
      toSend,
      prepared: () => {
        prepared(undefined)
      },
      sent: () => {
        sent(undefined)
      },
      leave: () => {
        prepared(undefined)
        sent(undefined)
      },
    }
  }
}

/** So many at once; the others wait in line. */
export class Slots {
  private readonly waiting: (() => void)[] = []
  constructor(private free: number) {}

  /** Resolves with what gives the place back. */
  async take(): Promise<() => void> {
    if (this.free > 0) this.free--
    else
      await new Promise<void>((resolve) => {
        this.waiting.push(resolve)
      })
    return () => {
      const next = this.waiting.shift()
      if (next === undefined) this.free++
      else next()
    }
  }
}
