/** Makes partition keys and hashes of records as the options say, or tells why a record has none. */
import { createHash, randomBytes } from 'node:crypto'
import type { Entry } from '../../../core/contract'
import { jsonText } from '../../../kit/json-scan'
import type { OptionsOf } from '../../../options/define'
import { parseRecordTemplate } from '../../../options/record-template'
import { MAX_HASH, MAX_KEY_LENGTH, type KinesisOptions } from '../options'

/** The default, written out. */
const OWN_KEY = '{key}'
export interface RecordKeys {
  readonly partitionKey: string
  readonly explicitHashKey?: string
}
/** Throws a RangeError that says why a record has none. */
export type KeyFunction = (entry: Entry) => RecordKeys

/** Finds faults before anything is opened. */
export function keyFaults({ partitionKey, explicitHashKey, order }: OptionsOf<KinesisOptions>): readonly string[] {
  const faults: string[] = []
  const checkTemplate = (name: string, raw: string | undefined, judge: (text: string) => void): void => {
    if (raw === undefined || /\{(env|file|exec):/.test(raw)) return
    try {
      if (parseRecordTemplate(raw).every((part) => 'text' in part)) judge(raw)
    } catch (error) {
      faults.push(`${name}=: ${(error as Error).message}`)
    }
  }
  checkTemplate('partition-key', partitionKey, checkKey)
  checkTemplate('explicit-hash-key', explicitHashKey, checkHash)
  if (order === 'key' && partitionKey === 'random')
    faults.push('order=key keeps the order of each key, and partition-key=random gives every record another')
  return faults
}

/** Of options that were checked. */
export function keyFunction({
  partitionKey,
  explicitHashKey,
}: Pick<OptionsOf<KinesisOptions>, 'partitionKey' | 'explicitHashKey'>): KeyFunction {
  const key =
    partitionKey === undefined || partitionKey === OWN_KEY
      ? ownKey
      : partitionKey === 'random'
        ? randomKey
        : templateFunction(partitionKey, 'partition key', checkKey)
  if (explicitHashKey === undefined) return (entry) => ({ partitionKey: key(entry) })
  const hash = templateFunction(explicitHashKey, 'explicit hash key', checkHash)
  return (entry) => ({ partitionKey: key(entry), explicitHashKey: hash(entry) })
}

function templateFunction(template: string, what: string, check: (text: string) => void): (entry: Entry) => string {
  const parts = parseRecordTemplate(template)
  if (parts.every((part) => 'text' in part)) return () => template
  return (entry) => {
    const text = parts
      .map((part) =>
        'text' in part
          ? part.text
          : part.from === 'key'
            ? (keyText(entry) ?? missing('key', what))
            : ((entry.value === null ? undefined : jsonText(entry.value, part.path)) ??
              missing(`${part.path.join('.')} in JSON`, what)),
      )
      .join('')
    check(text)
    return text
  }
}
function missing(part: string, what: string): never {
  throw new RangeError(`it has no ${part}, which the ${what} asks for`)
}

function ownKey(entry: Entry): string {
  const text = keyText(entry)
  if (text === undefined) return randomKey()
  checkKey(text)
  return text
}

/** A partition key is text: bytes that are none go as base64, so that records of one key stay together. */
function keyText({ key }: Entry): string | undefined {
  if (key === undefined || key.length === 0) return undefined
  const text = key.toString('utf8')
  return text.includes('\ufffd') && !Buffer.from(text).equals(key) ? key.toString('base64') : text
}

/** 64 bits: as good as evenly spread over any number of shards. */
function randomKey(): string {
  return randomBytes(8).toString('hex')
}

function checkKey(text: string): void {
  if (text === '') throw new RangeError('its partition key is empty')
  if (text.length > MAX_KEY_LENGTH)
    throw new RangeError(`its partition key is longer than ${MAX_KEY_LENGTH} characters`)
}
function checkHash(text: string): void {
  if (!/^(0|[1-9]\d{0,38})$/.test(text) || BigInt(text) > MAX_HASH)
    throw new RangeError('its explicit hash key is not a decimal number below 2^128')
}

/** Where in the hash space a record goes. */
export function hashOf({ partitionKey, explicitHashKey }: RecordKeys): bigint {
  return explicitHashKey === undefined
    ? BigInt(`0x${createHash('md5').update(partitionKey).digest('hex')}`)
    : BigInt(explicitHashKey)
}
