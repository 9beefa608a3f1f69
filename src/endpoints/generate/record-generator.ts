/**
 * Generates numbered records quickly. Records whose numbers have equally many digits have the same length. So a block
 * of them is a copy of a template in which the digits are overwritten.
 */
const LETTERS = Buffer.from('ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_')
/** The template has this size. Its paddings repeat at a distance that is larger than the window of gzip. */
const TEMPLATE_BYTES = 512 * 1024
const MAX_ROWS = 4096
const FIRST_DIGIT = '{"seq":'.length
const ZERO = 0x30
const NINE = 0x39

export class RecordGenerator {
  private readonly rows: number
  private readonly padding: Buffer
  private rowTemplate: { readonly digits: number; readonly row: number; readonly bytes: Buffer } | undefined

  /** @param size the bytes of a record without its newline */
  constructor(
    private readonly size: number,
    seed: number,
  ) {
    this.rows = Math.min(MAX_ROWS, Math.max(1, Math.floor(TEMPLATE_BYTES / (size + 1))))
    this.padding = randomLetters(this.rows * size, seed)
  }

  /**
   * Returns records from number `first` on: at least one, and no more than are allowed, fit into the bytes and have
   * equally many digits.
   */
  block(first: number, allowed: number, bytes: number): { readonly bytes: Buffer; readonly count: number } {
    const digits = String(first).length
    const { row, bytes: template } = this.rowTemplate?.digits === digits ? this.rowTemplate : this.templateFor(digits)
    const count = Math.max(1, Math.min(allowed, Math.floor(bytes / row), 10 ** digits - first))
    const block = Buffer.allocUnsafeSlow(count * row)
    for (let at = 0, number = first; at < block.length; ) {
      const from = (number % this.rows) * row
      const copied = template.copy(block, at, from)
      at += copied
      number += copied / row
    }
    const number = Buffer.from(String(first))
    for (let at = FIRST_DIGIT; at < block.length; at += row) {
      for (let i = 0; i < digits; i++) block[at + i] = number[i] ?? 0
      let digit = digits - 1
      while (digit >= 0 && number[digit] === NINE) number[digit--] = ZERO
      if (digit >= 0) number[digit] = (number[digit] ?? 0) + 1
    }
    return { bytes: block, count }
  }

  private templateFor(digits: number): { readonly digits: number; readonly row: number; readonly bytes: Buffer } {
    const head = `{"seq":${'0'.repeat(digits)}`
    const padding = this.size - head.length - ',"pad":""}'.length
    const bytes = Buffer.from(
      Array.from({ length: this.rows }, (_, index) =>
        padding < 0
          ? `${head}}\n`
          : `${head},"pad":"${this.padding.toString('latin1', index * this.size, index * this.size + padding)}"}\n`,
      ).join(''),
    )
    this.rowTemplate = { digits, row: bytes.length / this.rows, bytes }
    return this.rowTemplate
  }
}

function randomLetters(length: number, seed: number): Buffer {
  const pool = Buffer.allocUnsafe(length)
  let state = seed >>> 0
  for (let i = 0; i < length; i++) {
    // This is SplitMix (Steele, Lea and Flood) with 32 bits.
    state = (state + 0x9e3779b9) >>> 0
    let mixed = Math.imul(state ^ (state >>> 16), 0x21f0aaad)
    mixed = Math.imul(mixed ^ (mixed >>> 15), 0x735a2d97)
    pool[i] = LETTERS[(mixed ^ (mixed >>> 15)) & 63] ?? 0
  }
  return pool
}
