/**
 * Finds members of JSON objects in raw bytes, without parsing the rest. The last of several members with one name
 * counts, as for JSON.parse.
 *
 * Only the structure on the way is checked: the objects on the path, the names, strings, literals and numbers in them,
 * and that nothing follows the outermost value. The contents of other members are skipped by their brackets and
 * strings.
 */
export interface Range {
  readonly start: number
  readonly end: number
}
export interface ObjectScan {
  /** The value of each requested name. */
  readonly found: readonly (Range | undefined)[]
  /** A new member can be inserted here: behind the last one, or behind the opening brace. */
  readonly last: number
  readonly empty: boolean
  /** The index behind the closing brace. */
  readonly end: number
}
/** The name of a member, with its bytes before any escaping. */
export interface MemberName {
  readonly text: string
  readonly bytes: Buffer
}

const QUOTE = 0x22,
  COMMA = 0x2c,
  MINUS = 0x2d,
  DOT = 0x2e,
  COLON = 0x3a,
  OPEN_LIST = 0x5b,
  BACKSLASH = 0x5c,
  CLOSE_LIST = 0x5d,
  OPEN = 0x7b,
  CLOSE = 0x7d
const BAD = -1

export function memberName(text: string): MemberName {
  return { text, bytes: Buffer.from(text) }
}

/** Scans the bytes as one object with optional white space around it. It returns undefined if they are no object. */
export function scanDocument(bytes: Buffer, names: readonly MemberName[]): ObjectScan | undefined {
  const scan = scanObject(bytes, documentStart(bytes), names)
  return scan !== undefined && skipSpace(bytes, scan.end) === bytes.length ? scan : undefined
}

/**
 * Returns the range of the value at a path, or undefined if there is none or the bytes are no JSON. A number in the
 * path is also an index of a list.
 */
export function findMember(bytes: Buffer, path: readonly string[]): Range | undefined {
  return findNamed(bytes, path.map(memberName))
}

/** Does the same with a path whose names are encoded already, for callers with many documents. */
export function findNamed(bytes: Buffer, path: readonly MemberName[]): Range | undefined {
  let at: Range = { start: documentStart(bytes), end: bytes.length }
  for (const [depth, name] of path.entries()) {
    if (bytes[at.start] === OPEN) {
      const scan = scanObject(bytes, at.start, [name])
      if (
        scan === undefined ||
        (depth === 0 && skipSpace(bytes, scan.end) !== bytes.length) ||
        scan.found[0] === undefined
      )
        return undefined
      at = scan.found[0]
    } else {
      const item =
        bytes[at.start] === OPEN_LIST && /^\d+$/.test(name.text)
          ? scanList(bytes, at.start, Number(name.text))
          : undefined
      if (item === undefined) return undefined
      at = item
    }
  }
  if (path.length > 0) return at
  const end = skipValue(bytes, at.start)
  return end !== BAD && skipSpace(bytes, end) === bytes.length ? { start: at.start, end } : undefined
}

/**
 * Returns the value at a path as text: a string without its escapes, any other value as written. It returns undefined
 * if there is none, if it is null, or if the bytes are no JSON.
 */
export function jsonText(bytes: Buffer, path: readonly string[]): string | undefined {
  const range = findMember(bytes, path)
  if (range === undefined) return undefined
  const raw = bytes.toString('utf8', range.start, range.end)
  if (bytes[range.start] !== QUOTE) return raw === 'null' ? undefined : raw
  try {
    return raw.includes('\\') ? (JSON.parse(raw) as string) : raw.slice(1, -1)
  } catch {
    return undefined
  }
}

/**
 * Returns the index behind white space and behind a byte-order mark, which some editors put before the first line of a
 * file.
 */
function documentStart(bytes: Buffer): number {
  return skipSpace(bytes, bytes[0] === 0xef && bytes[1] === 0xbb && bytes[2] === 0xbf ? 3 : 0)
}

function scanObject(bytes: Buffer, start: number, names: readonly MemberName[]): ObjectScan | undefined {
  if (bytes[start] !== OPEN) return undefined
  const found = new Array<Range | undefined>(names.length).fill(undefined)
  let at = skipSpace(bytes, start + 1)
  if (bytes[at] === CLOSE) return { found, last: start + 1, empty: true, end: at + 1 }
  for (;;) {
    const nameEnd = bytes[at] === QUOTE ? skipString(bytes, at) : BAD
    if (nameEnd === BAD) return undefined
    const colon = skipSpace(bytes, nameEnd)
    if (bytes[colon] !== COLON) return undefined
    const value = skipSpace(bytes, colon + 1)
    const end = skipValue(bytes, value)
    if (end === BAD) return undefined
    for (let i = 0; i < names.length; i++) {
      const name = names[i]
      if (name !== undefined && isName(bytes, at + 1, nameEnd - 1, name)) found[i] = { start: value, end }
    }
    at = skipSpace(bytes, end)
    if (bytes[at] === CLOSE) return { found, last: end, empty: false, end: at + 1 }
    if (bytes[at] !== COMMA) return undefined
    at = skipSpace(bytes, at + 1)
  }
}

function scanList(bytes: Buffer, start: number, wanted: number): Range | undefined {
  let at = skipSpace(bytes, start + 1)
  for (let index = 0; ; index++) {
    const end = skipValue(bytes, at)
    if (end === BAD) return undefined
    if (index === wanted) return { start: at, end }
    at = skipSpace(bytes, end)
    if (bytes[at] !== COMMA) return undefined
    at = skipSpace(bytes, at + 1)
  }
}

function isName(bytes: Buffer, start: number, end: number, name: MemberName): boolean {
  const wanted = name.bytes
  if (end - start === wanted.length) {
    let i = 0
    while (i < wanted.length && bytes[start + i] === wanted[i]) i++
    if (i === wanted.length) return true
  }
  // An escape makes a name longer, never shorter.
  if (end - start <= wanted.length) return false
  const escape = bytes.indexOf(BACKSLASH, start)
  if (escape === -1 || escape >= end) return false
  try {
    return JSON.parse(bytes.toString('utf8', start - 1, end + 1)) === name.text
  } catch {
    return false
  }
}

function skipSpace(bytes: Buffer, from: number): number {
  let at = from
  for (let c = bytes[at]; c === 0x20 || c === 0x0a || c === 0x0d || c === 0x09; c = bytes[++at]);
  return at
}

/** The engine searches longer strings, which is faster but costs a call. Control characters in them are not noticed. */
const SHORT_STRING = 32

/** Returns the index behind the closing quote. */
function skipString(bytes: Buffer, start: number): number {
  const near = Math.min(bytes.length, start + SHORT_STRING)
  let at = start + 1
  for (; at < near; at++) {
    const c = bytes[at]
    if (c === QUOTE) return at + 1
    if (c === BACKSLASH) at++
    else if (c !== undefined && c < 0x20) return BAD
  }
  const far = at
  for (let quote = bytes.indexOf(QUOTE, far); quote !== -1; quote = bytes.indexOf(QUOTE, quote + 1)) {
    let escapes = 0
    while (quote - escapes > far && bytes[quote - escapes - 1] === BACKSLASH) escapes++
    if (escapes % 2 === 0) return quote + 1
  }
  return BAD
}

function skipValue(bytes: Buffer, start: number): number {
  const c = bytes[start]
  if (c === QUOTE) return skipString(bytes, start)
  if (c === OPEN || c === OPEN_LIST) return skipNested(bytes, start)
  if (c === MINUS || isDigit(c)) return skipNumber(bytes, start)
  return c === 0x74
    ? skipWord(bytes, start, 'true')
    : c === 0x66
      ? skipWord(bytes, start, 'false')
      : c === 0x6e
        ? skipWord(bytes, start, 'null')
        : BAD
}

/** This uses no recursion, because a mebibyte of brackets would overflow the stack. */
function skipNested(bytes: Buffer, start: number): number {
  const closers: number[] = []
  for (let at = start; at < bytes.length; ) {
    const c = bytes[at]
    if (c === QUOTE) {
      at = skipString(bytes, at)
      if (at === BAD) return BAD
      continue
    }
    if (c === OPEN) closers.push(CLOSE)
    else if (c === OPEN_LIST) closers.push(CLOSE_LIST)
    else if (c === CLOSE || c === CLOSE_LIST) {
      if (closers.pop() !== c) return BAD
      if (closers.length === 0) return at + 1
    }
    at++
  }
  return BAD
}

function skipNumber(bytes: Buffer, start: number): number {
  const first = bytes[start] === MINUS ? start + 1 : start
  let at = skipDigits(bytes, first)
  if (at === BAD || (bytes[first] === 0x30 && at > first + 1)) return BAD
  if (bytes[at] === DOT) at = skipDigits(bytes, at + 1)
  if (at !== BAD && (bytes[at] === 0x65 || bytes[at] === 0x45))
    at = skipDigits(bytes, bytes[at + 1] === 0x2b || bytes[at + 1] === MINUS ? at + 2 : at + 1)
  return at
}

/** Requires at least one digit. */
function skipDigits(bytes: Buffer, start: number): number {
  let at = start
  while (isDigit(bytes[at])) at++
  return at === start ? BAD : at
}

function isDigit(c: number | undefined): boolean {
  return c !== undefined && c >= 0x30 && c <= 0x39
}

function skipWord(bytes: Buffer, start: number, word: string): number {
  for (let i = 0; i < word.length; i++) if (bytes[start + i] !== word.charCodeAt(i)) return BAD
  return start + word.length
}
