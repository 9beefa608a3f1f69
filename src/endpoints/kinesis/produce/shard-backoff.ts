/**
 * Shards that have asked for patience, each with a pause of its own, which grows until the shard takes something again.
 */

const FIRST_MS = 250
const MAX_MS = 10_000

export class ShardBackoff {
  private readonly byShard = new Map<string, { readonly until: number; readonly ms: number }>()

  /** No shard is to be spared. Those that nothing was sent to for long since are forgotten: they may be closed. */
  isEmpty(now: number): boolean {
    for (const [shard, { until }] of this.byShard) if (until + MAX_MS < now) this.byShard.delete(shard)
    return this.byShard.size === 0
  }

  /** It was throttled. @returns milliseconds to wait */
  throttled(shard: string, now: number): number {
    const before = this.byShard.get(shard)
    // Entries of one answer, and of answers that were under way together, are one throttle.
    if (before !== undefined && before.until > now) return before.until - now
    const ms = Math.min(MAX_MS, before === undefined ? FIRST_MS : before.ms * 2)
    this.byShard.set(shard, { until: now + ms, ms })
    return ms
  }
  succeeded(shard: string): void {
    this.byShard.delete(shard)
  }

  /** Milliseconds that it still wants; 0: none. */
  remainingMs(shard: string, now: number): number {
    return Math.max(0, (this.byShard.get(shard)?.until ?? 0) - now)
  }
}
