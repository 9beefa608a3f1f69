/** How many messages the broker may send ahead, so that about so many bytes are under way: it counts messages only (basic.qos by size is refused with 540). */
import { MAX_PREFETCH } from './options'

/** Until sizes are known. */
const FIRST = 512
/** Sizes known from so many messages on; the mean runs over about so many. */
const KNOWN = 256
/** A new count costs a new consumer: quorum queues refuse to change it for the channel. */
const WORTH = 2

export class Prefetch {
  private seen = 0
  private mean = 0

  /** @param fixed a count that was asked for; 0: steered */
  constructor(private readonly fixed: number, private readonly bytes: number) {}

  saw(bytes: number): void {
    this.seen++
    this.mean += (bytes - this.mean) / Math.min(this.seen, KNOWN)
  }

  get first(): number { return this.fixed > 0 ? this.fixed : this.seen >= KNOWN ? this.wanted : FIRST }

  /** Another count that is worth having, or undefined. */
  better(current: number): number | undefined {
    if (this.fixed > 0 || this.seen < KNOWN) return undefined
    const { wanted } = this
    return wanted >= current * WORTH || wanted * WORTH <= current ? wanted : undefined
  }

  private get wanted(): number { return Math.min(MAX_PREFETCH, Math.max(1, Math.round(this.bytes / Math.max(1, this.mean)))) }
}
