/** Drives the S3 sink as the core does, without the core. */
import { createHash } from 'node:crypto'
import type { EndpointContext, Outcome, Segment, Sink, Write } from '../../src/core/contract'
import { systemClock } from '../../src/kit/clock'
import type { Given, OptionsOf, Target } from '../../src/options/define'
import { options } from '../../src/endpoints/s3/options'
import { create } from '../../src/endpoints/s3/sink'

export type S3Options = OptionsOf<typeof options>
type Spec = typeof options

/** Parses these words as the command line does. */
export function given(words: Partial<S3Options> = {}, bucket = 'lake', path = '/trades'): Given<Spec> {
  const defaults = Object.fromEntries(
    Object.entries(options).map(([key, option]) => [key, 'default' in option ? option.default : undefined]),
  ) as S3Options
  return {
    options: { ...defaults, ...words },
    uri: { scheme: 's3', hosts: bucket === '' ? [] : [{ host: bucket }], path, text: `s3://${bucket}${path}` },
  }
}
export function target(words: Partial<S3Options>, bucket: string, path = '/trades'): Target<Spec> {
  const all = given(words, bucket, path)
  return { ...all, label: all.uri.text, resolve: () => Promise.resolve(all) }
}

export function segmentOf(content: Buffer, facts: Partial<Segment> = {}): Segment {
  return segmentFrom(
    content.length,
    createHash('sha256').update(content).digest('hex'),
    async function* (offset) {
      for (let at = offset; at < content.length; at += 1 << 20)
        yield content.subarray(at, Math.min(content.length, at + (1 << 20)))
    },
    facts,
  )
}
export function segmentFrom(
  length: number,
  sha256: string,
  read: (offset: number) => AsyncIterable<Buffer>,
  facts: Partial<Segment> = {},
): Segment {
  return {
    kind: 'segment',
    key: '2026-01-02/030405.000000000-0-1.ndjson',
    count: 1,
    length,
    sha256,
    compression: 'none',
    facts: { 'first-sequence': '1', 'last-sequence': '1' },
    read,
    ...facts,
  }
}

export interface Opened {
  readonly sink: Sink
  readonly logged: string[]
  readonly gauges: Map<string, number>
  write(segment: Segment, attempt?: number, signal?: AbortSignal): Promise<Outcome>
}
export function contextFor(
  logged: string[],
  signal = new AbortController().signal,
  gauges = new Map<string, number>(),
): EndpointContext {
  return {
    signal,
    clock: systemClock,
    gauge: (name, value) => {
      gauges.set(name, value)
    },
    log: {
      debug: (text) => {
        logged.push(`debug ${text}`)
      },
      info: (text) => {
        logged.push(`info ${text}`)
      },
      warn: (text) => {
        logged.push(`warn ${text}`)
      },
    },
  }
}
/** An opened sink; close it. */
export async function opened(words: Partial<S3Options>, bucket: string, path?: string): Promise<Opened> {
  const sink = create(target(words, bucket, path))
  const logged: string[] = []
  const gauges = new Map<string, number>()
  try {
    await sink.open(contextFor(logged, undefined, gauges))
  } catch (error) {
    await sink.close()
    throw error
  }
  return {
    sink,
    logged,
    gauges,
    write: (segment, attempt = 1, signal = new AbortController().signal) =>
      sink.write(writeOf(segment, attempt), signal),
  }
}
export function writeOf(segment: Segment, attempt = 1): Write {
  return {
    id: 'w',
    attempt,
    payload: segment,
    origin: () => {
      throw new Error('nobody asks')
    },
  }
}
