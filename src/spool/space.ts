/**
 * Tells whether there is space to write: it knows the reserve of the disk and the bound of the spool. It asks the file
 * system now and then, not at every write.
 */
import type { Log } from '../core/contract'
import { lineOf } from '../core/errors'
import { formatSize } from '../kit/sizes'
import type { FileSystem } from '../kit/file-system'

const GIB = 1024 ** 3
const ASK_EVERY = 32 * 1024 * 1024

export function outOfSpace(error: unknown): boolean {
  const code = (error as NodeJS.ErrnoException | undefined)?.code
  return code === 'ENOSPC' || code === 'EDQUOT'
}

export class Space {
  private sinceAsked = Infinity
  /**
   * Bytes that could be written when the file system was asked last. It is asked again before half of them are used,
   * because others write there as well.
   */
  private left = 0
  private short = false
  private told = false

  constructor(
    private readonly fs: FileSystem,
    private readonly directory: string,
    private readonly reserve: number | undefined,
    private readonly maxBytes: number | undefined,
    private readonly log: Log,
  ) {}

  /** Why so many bytes cannot be written now; undefined where they can. */
  async shortage(bytes: number, held: number): Promise<string | undefined> {
    // An empty spool takes one group, however small its bound: otherwise nothing would ever move.
    if (this.maxBytes !== undefined && held > 0 && held + bytes > this.maxBytes)
      return `it holds ${formatSize(held)} of at most ${formatSize(this.maxBytes)}`
    if (!this.short && this.sinceAsked + bytes < Math.min(ASK_EVERY, this.left / 2)) return undefined
    const space = await this.fs.space(this.directory).catch((error: unknown) => {
      if (!this.told)
        this.log.warn(
          `how much space is left for the spool in ${this.directory} cannot be found out, so nothing is kept free: ${lineOf(error)}`,
        )
      this.told = true
      return undefined
    })
    if (space === undefined) return undefined
    const { free, total } = space
    const reserve = this.reserve ?? Math.min(Math.max(GIB, total * 0.05), total / 4)
    this.sinceAsked = 0
    this.left = Math.max(0, free - reserve)
    this.short = free - bytes < reserve
    return this.short
      ? `${formatSize(free)} are free on its disk, of which ${formatSize(Math.round(reserve))} stay free`
      : undefined
  }
  used(bytes: number): void {
    this.sinceAsked += bytes
  }
}
