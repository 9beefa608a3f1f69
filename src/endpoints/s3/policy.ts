/**
 * Where objects lie: bucket, folder and keys. Pure.
 *
 * - A key is decided once, at sealing; it holds times and the segment's id, so two segments never share one (but for
 *   layout=original, which has no id).
 * - `period` changes whenever a time variable in the folders of the key changes: an object never lies in the folder of
 *   another day than its first record.
 * - Bucket and folder of a key never come from records.
 */
import { awsFaults } from '../../aws/credentials'
import { compressionOf, suffixOf } from '../../codec/compression'
import type { Compression, SegmentPolicy } from '../../core/contract'
import type { Given } from '../../options/define'
import { canonicalUrl } from '../../options/canonical-form'
import { splitTemplate } from '../../options/record-template'
import { MAX_KEY, MAX_TAGS, MAX_TAG_NAME, MAX_TAG_VALUE, type options } from './options'

const STANDARD_TEMPLATE = '{yyyy}-{mm}-{dd}/{HH}{MM}{SS}.{nano}-{id}.ndjson'
const ORIGINAL_TEMPLATE = '{yyyy}-{mm}-{dd}/{HH}{MM}{SS}.{nano}'
const VARIABLES = ['yyyy', 'mm', 'dd', 'HH', 'MM', 'SS', 'nano', 'id'] as const
/** Longer than any id a spool makes: what the length of keys is checked with. */
const LONGEST_ID = '0'.repeat(64)

/** As the API reference of S3 tags gives it. */
const TAG_TEXT = /^[\p{L}\p{Z}\p{N}_.:/=+\-@]*$/u

type Variable = (typeof VARIABLES)[number]
type KeyPart = { readonly text: string } | { readonly variable: Variable }
type Times = Readonly<Record<Exclude<Variable, 'id' | 'nano'>, string>>

/**
 * The last dot of a name that letters and digits follow, and a compression's suffix after it: `.ndjson.gz`, not the
 * `.{nano}` of a template.
 */
const EXTENSION = /(?:\.[A-Za-z][A-Za-z0-9]{0,15})?(?:\.(?:gz|zst))?$/i

export function destinationOf(given: Given<typeof options>): { readonly bucket: string; readonly folder: string } {
  return {
    bucket: given.uri.hosts[0]?.host || (given.options.bucketName ?? ''),
    folder: trimSlashes(given.uri.path) || trimSlashes(given.options.folder ?? ''),
  }
}

export function fullKey(folder: string, key: string): string {
  return folder === '' ? key : `${folder}/${key}`
}

/**
 * The key for content whose own key is taken by another content: told apart by the content itself, so that a retry
 * finds it again.
 */
export function alternativeKey(key: string, sha256: string): string {
  return insertBeforeExtension(key, `-${sha256.slice(0, 16)}`)
}

export function segmentPolicy(given: Given<typeof options>): SegmentPolicy {
  const { bucket, folder } = destinationOf(given)
  const { options: o } = given
  const parts = parseTemplate(templateOf(given))
  const timesAt = timesInZone(o.timeZone ?? (o.layout === 'original' ? undefined : 'UTC'))
  const folders = parts.slice(0, 1 + parts.findLastIndex((part) => 'text' in part && part.text.includes('/')))
  return {
    sealBytes: o.commitFileSize,
    sealAge: o.commitDuration,
    framing: o.framing,
    compression: compressionIn(given),
    retryEvery: o.uploadEvery,
    key: ({ receivedAt, sealedAt, id }) => render(parts, o.layout === 'original' ? sealedAt : receivedAt, id, timesAt),
    // The original's keys tell when an object was closed: no time of its records can change them.
    period: (receivedAt) =>
      o.layout === 'original' ? '' : render(folders, receivedAt, '', timesAt).replace(/[^/]*$/, ''),
    target: `s3://${bucket}${folder === '' ? '' : `/${folder}`}${o.endpoint === undefined ? '' : ` endpoint=${canonicalUrl(o.endpoint)}`}`,
    normal: (target) => target.replace(/ endpoint=(\S+)$/, (_, url: string) => ` endpoint=${canonicalUrl(url)}`),
  }
}

/** A line for each thing wrong with what was given. */
export function faultsOf(given: Given<typeof options>): readonly string[] {
  const { options: o, uri } = given
  const faults: string[] = []
  const named = uri.hosts[0]?.host ?? ''
  const { bucket, folder } = destinationOf(given)
  if (uri.hosts.length > 1 || uri.hosts[0]?.port !== undefined)
    faults.push('an S3 URI is s3://BUCKET/FOLDER; the server goes into endpoint=')
  if (uri.user !== undefined || uri.password !== undefined)
    faults.push('credentials do not belong into an S3 URI: use access-key-id= and secret-access-key={env:NAME}')
  if (bucket === '') faults.push('no bucket is named: s3://BUCKET/FOLDER')
  if (named !== '' && o.bucketName !== undefined && o.bucketName !== named)
    faults.push(`two buckets are named: ${named} in the URI and bucket-name=${o.bucketName}`)
  if (trimSlashes(uri.path) !== '' && o.folder !== undefined && trimSlashes(o.folder) !== trimSlashes(uri.path))
    faults.push('two folders are named: one in the URI and one in folder=')
  if (folder.split('/').some((name) => name === '.' || name === '..')) faults.push('a folder cannot have . or .. in it')
  if (o.key !== undefined && o.layout === 'original') faults.push('key= and layout=original exclude each other')
  faults.push(...keyFaults(given, folder))
  const compression = compressionIn(given)
  if (o.compressionLevel !== undefined && compression === 'none')
    faults.push('compression-level needs compression=gzip or compression=zstd')
  if (o.compressionLevel !== undefined && compression === 'gzip' && o.compressionLevel > 9)
    faults.push('compression-level of gzip is 9 at the most')
  if (o.kmsKeyId !== undefined && o.sse !== 'aws:kms') faults.push('kms-key-id needs sse=aws:kms')
  faults.push(...awsFaults(o))
  if (o.tag.length > MAX_TAGS) faults.push(`an object has ${MAX_TAGS} tags at the most, not ${o.tag.length}`)
  for (const [name, value] of o.tag) {
    if (name === '') faults.push('a tag is given as tag.NAME=VALUE')
    if (name.length > MAX_TAG_NAME || value.length > MAX_TAG_VALUE)
      faults.push(
        `tag.${name.slice(0, 20)}: a tag's name has ${MAX_TAG_NAME} characters at the most, its value ${MAX_TAG_VALUE}`,
      )
    if (!TAG_TEXT.test(name) || !TAG_TEXT.test(value))
      faults.push(`tag.${name.slice(0, 20)}: a tag holds letters, digits, spaces and + - = . _ : / @`)
  }
  if (new Set(o.tag.map(([name]) => name)).size < o.tag.length) faults.push('a tag is given twice')
  return faults
}

function keyFaults(given: Given<typeof options>, folder: string): readonly string[] {
  const { key, timeZone } = given.options
  const faults: string[] = []
  if (timeZone !== undefined) {
    try {
      timesInZone(timeZone)(0)
    } catch {
      faults.push(`time-zone=${timeZone} is not known: Europe/Berlin or UTC are such names`)
    }
  }
  if (key !== undefined) {
    if (key.split('/').some((name) => name === '' || name === '.' || name === '..'))
      faults.push(`key=${key}: it cannot begin or end with /, nor have an empty name, . or .. in it`)
    // eslint-disable-next-line no-control-regex -- control characters are what is refused
    if (/[\u0000-\u001f\u007f\\]/.test(key)) faults.push('key: no backslash and no control character can stand in it')
  }
  let parts: readonly KeyPart[]
  try {
    parts = parseTemplate(templateOf(given))
  } catch (error) {
    return [...faults, `key: ${(error as Error).message}`]
  }
  const longest = Buffer.byteLength(
    alternativeKey(fullKey(folder, render(parts, 0, LONGEST_ID, timesInZone('UTC'))), LONGEST_ID),
  )
  if (longest > MAX_KEY) faults.push(`folder and key are too long: ${longest} bytes, where S3 takes ${MAX_KEY}`)
  return faults
}

/** A key that ends in .gz means it. */
function compressionIn({ options: { compression, key } }: Given<typeof options>): Compression {
  return compression === 'auto' ? compressionOf(key ?? '') : compression
}

/** The template with what must stand in it. */
function templateOf(given: Given<typeof options>): string {
  const { options: o } = given
  const suffix = suffixOf(compressionIn(given))
  const template =
    o.layout === 'original'
      ? ORIGINAL_TEMPLATE
      : o.key === undefined
        ? STANDARD_TEMPLATE
        : o.key.includes('{id}')
          ? o.key
          : insertBeforeExtension(o.key, '-{id}')
  return template.toLowerCase().endsWith(suffix) ? template : template + suffix
}

function parseTemplate(template: string): readonly KeyPart[] {
  return splitTemplate(template).map((part) => {
    if ('text' in part) return part
    if (isVariable(part.name)) return { variable: part.name }
    throw new Error(`{${part.name}} is not known; there are ${VARIABLES.map((name) => `{${name}}`).join(' ')}`)
  })
}
function isVariable(name: string): name is Variable {
  return VARIABLES.some((variable) => variable === name)
}

function render(parts: readonly KeyPart[], ms: number, id: string, timesAt: (second: number) => Times): string {
  const second = Math.floor(ms / 1000)
  const times = timesAt(second)
  const value = (variable: Variable): string => {
    if (variable === 'id') return id
    // Nine digits by custom; a double holds the epoch's milliseconds to about 0.2 µs.
    if (variable === 'nano')
      return String(Math.min(999_999_999, Math.floor((ms - second * 1000) * 1e6))).padStart(9, '0')
    return times[variable]
  }
  return parts.map((part) => ('text' in part ? part.text : value(part.variable))).join('')
}

/**
 * The parts of a time, given in seconds of the epoch, in a zone; undefined is this machine's. The last answer is kept:
 * most questions are about one second.
 */
function timesInZone(zone: string | undefined): (second: number) => Times {
  const format = new Intl.DateTimeFormat('en-US', {
    ...(zone === undefined ? {} : { timeZone: zone }),
    calendar: 'gregory',
    numberingSystem: 'latn',
    hourCycle: 'h23',
    year: 'numeric',
    month: '2-digit',
    day: '2-digit',
    hour: '2-digit',
    minute: '2-digit',
    second: '2-digit',
  })
  let last = NaN
  let times: Times
  return (second) => {
    if (second === last) return times
    const parts = new Map(format.formatToParts(second * 1000).map(({ type, value }) => [type, value]))
    const part = (type: Intl.DateTimeFormatPartTypes): string => parts.get(type) ?? ''
    times = {
      yyyy: part('year').padStart(4, '0'),
      mm: part('month'),
      dd: part('day'),
      HH: part('hour'),
      MM: part('minute'),
      SS: part('second'),
    }
    last = second
    return times
  }
}

function insertBeforeExtension(key: string, text: string): string {
  const slash = key.lastIndexOf('/') + 1
  const name = key.slice(slash)
  // The first character is never a dot of the extension: .hidden is a name.
  const at = name.length - (EXTENSION.exec(name.slice(1))?.[0].length ?? 0)
  return key.slice(0, slash) + name.slice(0, at) + text + name.slice(at)
}
function trimSlashes(text: string): string {
  return text.replace(/^\/+|\/+$/g, '')
}
