/**
 * Computes pauses with jitter: each is drawn evenly between the least pause and a bound that doubles, so that many
 * clients do not come back at once.
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
    // A pause is never shorter than the least one, because retries without pause would be a tight loop.
    const wait = this.minMs + this.random() * (this.bound - this.minMs)
    this.bound = Math.min(this.maxMs, this.bound * 2)
    return wait
  }

  reset(): void {
    this.bound = this.minMs
  }
}
