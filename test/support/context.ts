/**
 * Makes the context that a flow would give an endpoint, for tests that drive one directly. It has the real clock and
 * keeps everything that it is told.
 */
import type { EndpointContext, Gap, Partition, Position, SourceContext } from '../../src/core/contract'
import { systemClock } from '../../src/kit/clock'
import { splitUri, buildUri } from '../../src/options/split'
import type { AnyEndpoint, AnyTarget } from '../../src/options/define'

export interface Told {
  readonly logs: { readonly level: 'debug' | 'info' | 'warn'; readonly message: string; readonly facts?: object }[]
  readonly gauges: Map<string, number>
  readonly gaps: Gap[]
  readonly lost: Partition[]
  readonly committed: { readonly partition: string; readonly upTo: Position }[]
  /** Everything as one text: where planted secrets must not be found. */
  text(): string
}
export interface ContextOptions {
  readonly signal?: AbortSignal
  readonly lastReceivedAt?: number
  readonly positions?: Readonly<Record<string, Position>>
  /** Partitions with recovered records that wait. */
  readonly held?: readonly string[]
  revoke?(partition: Partition, deadlineMs: number): Promise<void>
}

export function makeEndpointContext(options: Pick<ContextOptions, 'signal'> = {}): {
  readonly ctx: EndpointContext
  readonly told: Told
} {
  const { ctx, told } = makeSourceContext(options)
  return { ctx, told }
}

export function makeSourceContext(options: ContextOptions = {}): { readonly ctx: SourceContext; readonly told: Told } {
  const told: Told = {
    logs: [],
    gauges: new Map(),
    gaps: [],
    lost: [],
    committed: [],
    text: () => JSON.stringify([told.logs, [...told.gauges], told.gaps, told.lost]),
  }
  const log =
    (level: 'debug' | 'info' | 'warn') =>
    (message: string, facts?: object): void => {
      told.logs.push({ level, message, ...(facts === undefined ? {} : { facts }) })
    }
  const ctx: SourceContext = {
    signal: options.signal ?? new AbortController().signal,
    clock: systemClock,
    log: { debug: log('debug'), info: log('info'), warn: log('warn') },
    gauge: (name, value) => {
      told.gauges.set(name, value)
    },
    resume: (partition) => options.positions?.[partition],
    resumable: () => Object.keys(options.positions ?? {}),
    ...(options.lastReceivedAt === undefined ? {} : { lastReceivedAt: options.lastReceivedAt }),
    revoke: options.revoke ?? (() => Promise.resolve()),
    lost: (partition) => {
      told.lost.push(partition)
    },
    gap: (gap) => {
      told.gaps.push(gap)
    },
    held: () => options.held ?? [],
    committed: (partition, upTo) => {
      told.committed.push({ partition, upTo })
    },
  }
  return { ctx, told }
}

/**
 * A target as the command line would make it, without placeholders. Options by key of the declaration: text is parsed
 * as on the command line, a list of texts is an option given several times, pairs are a map; anything else is taken as
 * the value itself.
 */
export function makeTarget(
  endpoint: AnyEndpoint,
  uri: string,
  given: Readonly<Record<string, unknown>> = {},
): AnyTarget {
  const options: Record<string, unknown> = {}
  for (const [key, option] of Object.entries(
    endpoint.options as Record<string, { kind: string; default?: unknown; parse(raw: string): unknown }>,
  )) {
    const value = given[key]
    options[key] =
      value === undefined
        ? option.default
        : typeof value === 'string'
          ? option.parse(value)
          : option.kind === 'list' && Array.isArray(value)
            ? value.flatMap((raw: string) => option.parse(raw))
            : value
  }
  const unknown = Object.keys(given).find((key) => !(key in endpoint.options))
  if (unknown !== undefined) throw new Error(`no option ${unknown}`)
  const whole = { options, uri: buildUri(splitUri(uri, [endpoint]).parts) }
  return { ...whole, label: uri, resolve: () => Promise.resolve(whole) }
}
