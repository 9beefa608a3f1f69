/**
 * Turns names of files into text and back without loss, because names are bytes to the operating system. Each byte that
 * is not UTF-8 becomes a lone surrogate, U+DC80 to U+DCFF. UTF-8 never decodes to these, and JSON keeps them.
 */
import { isUtf8 } from 'node:buffer'

const INVALID_BYTE = /[\uDC80-\uDCFF]/u
const INVALID_BYTES = /[\uDC80-\uDCFF]/gu

export function nameOf(bytes: Buffer): string {
  if (isUtf8(bytes)) return bytes.toString()
  let name = ''
  for (let at = 0; at < bytes.length; ) {
    const length = [1, 2, 3, 4].find((each) => at + each <= bytes.length && isUtf8(bytes.subarray(at, at + each)))
    name +=
      length === undefined ? String.fromCharCode(0xdc00 + (bytes[at] ?? 0)) : bytes.toString('utf8', at, at + length)
    at += length ?? 1
  }
  return name
}

/** Returns the name as the operating system takes it. */
export function pathOf(name: string): string | Buffer {
  if (!INVALID_BYTE.test(name)) return name
  return Buffer.concat(
    Array.from(name, (character) =>
      INVALID_BYTE.test(character) ? Buffer.from([character.charCodeAt(0) - 0xdc00]) : Buffer.from(character),
    ),
  )
}

/** Returns the name as messages show it, such as `caf\xe9`. */
export function displayName(name: string): string {
  return name.replace(INVALID_BYTES, (stray) => `\\x${(stray.charCodeAt(0) - 0xdc00).toString(16)}`)
}
