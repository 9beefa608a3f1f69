/**
 * How many messages the broker may send ahead, so that about so many bytes are under way: it counts messages only
 * (basic.qos by size is refused with 540).
 */
import { MAX_PREFETCH } from './options'

/** Until sizes are known. */
const INITIAL = 512
/** The same where it stays: what is acknowledged ten times a second has to last for a tenth of one. */
const INITIAL_FIXED_CONSUMER = 4096
/** Sizes known from so many messages on; the mean runs over about so many. */
const MIN_SAMPLES = 256
/** A new count costs a new consumer: quorum queues refuse to change it for the channel. */
const MIN_RATIO = 2
/** Share of a consumer's count after which it is replaced: the rest comes meanwhile. */
const NEARLY_USED = 0.75

export class Prefetch {
  private samples = 0
  private meanBytes = 0

  /**
   * @param configured a count that was asked for; 0: steered
   * @param isConsumerFixed a consumer that must not be replaced: somebody else might become it, who waits for the queue
   *   alone
   */
  constructor(
    private readonly configured: number,
    private readonly bytes: number,
    private readonly isConsumerFixed: boolean,
  ) {}

  observe(bytes: number): void {
    this.samples++
    this.meanBytes += (bytes - this.meanBytes) / Math.min(this.samples, MIN_SAMPLES)
  }

  get initial(): number {
    return this.configured > 0
      ? this.configured
      : this.samples >= MIN_SAMPLES
        ? this.target
        : this.isConsumerFixed
          ? INITIAL_FIXED_CONSUMER
          : INITIAL
  }

  /**
   * The count of another consumer that is worth having, or undefined. One consumer has at most MAX_PREFETCH: where so
   * many small messages wait for their acknowledgement, the next one begins anew, in order, for the one before gets
   * nothing any more.
   * @param ofConsumer messages of this consumer, and @param ofAll of all on the channel, that are not acknowledged
   */
  adjusted(current: number, ofConsumer: number, ofAll: number): number | undefined {
    if (this.configured > 0 || this.isConsumerFixed || this.samples < MIN_SAMPLES) return undefined
    const { target } = this
    if (target >= current * MIN_RATIO || target * MIN_RATIO <= current) return target
    return current === MAX_PREFETCH && ofConsumer > current * NEARLY_USED && ofAll + current <= this.capacity
      ? current
      : undefined
  }

  private get target(): number {
    return Math.min(MAX_PREFETCH, this.capacity)
  }
  private get capacity(): number {
    return Math.max(1, Math.round(this.bytes / Math.max(1, this.meanBytes)))
  }
}
