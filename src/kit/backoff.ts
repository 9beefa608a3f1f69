/**
 * Full jitter: each wait is drawn evenly between nothing and a bound that doubles, so that many clients do not come
 * back at once.
 */
export class Backoff {
  private bound: number

  constructor(
    private readonly minMs = 250,
    private readonly maxMs = 10_000,
    private readonly random: () => number = Math.random,
  ) {
    this.bound = minMs
  }

  next(): number {
    // Never below the least: "at once, again and again" is a tight loop against a peer that is down.
    const wait = this.minMs + this.random() * (this.bound - this.minMs)
    this.bound = Math.min(this.maxMs, this.bound * 2)
    return wait
  }

  reset(): void {
    this.bound = this.minMs
  }
}
