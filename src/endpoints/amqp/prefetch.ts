/**
 * Computes how many messages the broker may send before they are acknowledged, so that they have about a given size
 * together. The broker counts messages only (it refuses basic.qos by size with 540).
 */
import { MAX_PREFETCH } from './options'

/** This count is used until sizes are known. */
const INITIAL = 512
/**
 * This count is used at the start of a consumer that must not be replaced. Messages are acknowledged ten times a
 * second, so it has to last for a tenth of a second.
 */
const INITIAL_FIXED_CONSUMER = 4096
/** Sizes are known after this many messages, and the running mean covers about as many. */
const MIN_SAMPLES = 256
/**
 * A new count needs a new consumer, because quorum queues refuse to change the count of a channel. So it has to differ
 * by this factor.
 */
const MIN_RATIO = 2
/** A consumer is replaced when this share of its count is used, so that the rest arrives meanwhile. */
const NEARLY_USED = 0.75

export class Prefetch {
  private samples = 0
  private meanBytes = 0

  /**
   * @param configured the count that was configured, or 0 to compute it
   * @param isConsumerFixed the consumer must not be replaced, because another waiting consumer might take its place
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
   * Returns the count of a new consumer if one is worth its cost, or else undefined. A consumer has at most
   * MAX_PREFETCH. If that many small messages wait for their acknowledgement, a new consumer continues in order,
   * because the old one gets no more.
   * @param ofConsumer the unacknowledged messages of this consumer
   * @param ofAll the unacknowledged messages of the channel
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
