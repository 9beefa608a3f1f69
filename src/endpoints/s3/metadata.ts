/** Makes the metadata in which an object tells of itself. It is pure. */
import type { Segment } from '../../core/contract'
import type { StoredObject } from './client'
import { MAX_METADATA } from './options'

const PREFIX = 'manifold-'
/** The server counts names and values; some count the header's prefix as well. */
const HEADER = 'x-amz-meta-'
const ELLIPSIS = '...'
/** Below this a value that was cut tells nothing any more. */
const MIN_VALUE_LENGTH = 24
const IDENTITY = /^manifold-(?:sha256|length|count)$/

export function metadataOf(segment: Segment): Record<string, string> {
  const metadata: Record<string, string> = {}
  for (const [name, value] of Object.entries(segment.facts))
    metadata[PREFIX + name.toLowerCase().replace(/[^a-z0-9-]/g, '-')] = printable(value)
  metadata[`${PREFIX}sha256`] = segment.sha256
  metadata[`${PREFIX}length`] = String(segment.length)
  metadata[`${PREFIX}count`] = String(segment.count)
  for (;;) {
    const excess = sizeOf(metadata) - MAX_METADATA
    if (excess <= 0) return metadata
    // The longest is a list (positions, gaps); what it loses at its end, receipt and log still know. With very many
    // facts whole ones go.
    const facts = Object.entries(metadata).filter(([name]) => !IDENTITY.test(name))
    const longest = facts.reduce((a, b) => (b[1].length > a[1].length ? b : a), ['', ''])
    const keep = Math.max(MIN_VALUE_LENGTH, longest[1].length - excess - ELLIPSIS.length)
    if (keep + ELLIPSIS.length < longest[1].length) metadata[longest[0]] = longest[1].slice(0, keep) + ELLIPSIS
    else delete metadata[facts.at(-1)?.[0] ?? '']
  }
}

/** Some servers keep none, and some lose it. */
export function isMarked({ metadata }: StoredObject): boolean {
  return Object.keys(metadata).some((name) => name.startsWith(PREFIX))
}

/** That the object holds the segment's content: its uncompressed length and sha256 are the same. */
export function isSame(stored: StoredObject, segment: Segment): boolean {
  return (
    stored.metadata[`${PREFIX}sha256`] === segment.sha256 &&
    stored.metadata[`${PREFIX}length`] === String(segment.length) &&
    (segment.compression !== 'none' || stored.bytes === segment.length)
  )
}

function sizeOf(metadata: Readonly<Record<string, string>>): number {
  let bytes = 0
  for (const [name, value] of Object.entries(metadata)) bytes += HEADER.length + name.length + value.length
  return bytes
}
/** Header values: SigV4 folds runs of spaces, servers differ in whether they do. */
function printable(value: string): string {
  return value
    .replace(/[^\x20-\x7e]/g, '?')
    .replace(/ +/g, ' ')
    .trim()
}
