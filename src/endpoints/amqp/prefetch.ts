/**
 * How many messages the broker may send ahead, so that about so many bytes are under way: it counts messages only
 * (basic.qos by size is refused with 540).
 */
import { MAX_PREFETCH } from './options'

/** Until sizes are known. */
const FIRST = 512
/** The same where it stays: what is acknowledged ten times a second has to last for a tenth of one. */
const FIRST_STEADY = 4096
/** Sizes known from so many messages on; the mean runs over about so many. */
const KNOWN = 256
/** A new count costs a new consumer: quorum queues refuse to change it for the channel. */
const WORTH = 2
/** Share of a consumer's count after which it is replaced: the rest comes meanwhile. */
const NEARLY = 0.75

export class Prefetch {
  private seen = 0
  private mean = 0

  /**
   * @param fixed a count that was asked for; 0: steered
   * @param steady a consumer that must not be replaced: somebody else might become it, who waits for the queue alone
   */
  constructor(
    private readonly fixed: number,
    private readonly bytes: number,
    private readonly steady: boolean,
  ) {}

  saw(bytes: number): void {
    this.seen++
    this.mean += (bytes - this.mean) / Math.min(this.seen, KNOWN)
  }

  get first(): number {
    return this.fixed > 0 ? this.fixed : this.seen >= KNOWN ? this.wanted : this.steady ? FIRST_STEADY : FIRST
  }

  /**
   * The count of another consumer that is worth having, or undefined. One consumer has at most MAX_PREFETCH: where so
   * many small messages wait for their acknowledgement, the next one begins anew, in order, for the one before gets
   * nothing any more.
   * @param ofConsumer messages of this consumer, and @param ofAll of all on the channel, that are not acknowledged
   */
  better(current: number, ofConsumer: number, ofAll: number): number | undefined {
    if (this.fixed > 0 || this.steady || this.seen < KNOWN) return undefined
    const { wanted } = this
    if (wanted >= current * WORTH || wanted * WORTH <= current) return wanted
    return current === MAX_PREFETCH && ofConsumer > current * NEARLY && ofAll + current <= this.room
      ? current
      : undefined
  }

  private get wanted(): number {
    return Math.min(MAX_PREFETCH, this.room)
  }
  private get room(): number {
    return Math.max(1, Math.round(this.bytes / Math.max(1, this.mean)))
  }
}
