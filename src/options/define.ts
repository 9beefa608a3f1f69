/**
 * How an endpoint declares itself and its options: the only place where an option exists. Parsing, types, defaults,
 * help, reference pages, redaction and completions come from these declarations.
 */
import type { Sink, Source } from '../core/contract'
import { formatDuration, parseDuration } from '../kit/durations'
import { formatSize, parseSize } from '../kit/sizes'

export type Role = 'source' | 'sink'
export interface OptionFacts<T> {
  /** One sentence, ends in a full stop: the help, the reference page and the completion show it. */
  readonly doc: string
  readonly default?: T
  /** How the default reads in help, where the value itself would not do. */
  readonly defaultText?: string
  readonly required?: true
  readonly roles?: readonly Role[]
  /** Never shown: replaced by *** in messages, status and process title. */
  readonly secret?: true
  /** Part of a flow's identity: another value is another flow. */
  readonly identity?: true
  /** What stands for the value in help, where the kind does not say it: `HOST:PORT`. */
  readonly argument?: string
  /**
   * Other names it is known by (the original's struct members and KV arguments, where normalising the name is not
   * enough).
   */
  readonly aliases?: readonly string[]
}
/**
 * `kind` and `values` are for help and completions; `parse` gets the text after placeholders were replaced and throws
 * an Error that says what is allowed.
 */
export interface Option<T> extends OptionFacts<T> {
  readonly kind: 'string' | 'integer' | 'number' | 'flag' | 'size' | 'duration' | 'choice' | 'list' | 'map'
  readonly values?: readonly string[]
  /**
   * The unit that a bare number has, for help. Absent: a bare number is bytes (sizes) or refused (durations; 0 is
   * always allowed).
   */
  readonly bare?: string
  parse(raw: string): T
}
// The spec is a bag of differently typed options; inference restores each type.
// eslint-disable-next-line @typescript-eslint/no-explicit-any
export type Spec = Readonly<Record<string, Option<any>>>
type Value<O> = O extends { parse(raw: string): infer T }
  ? O extends { required: true } | { default: unknown }
    ? T
    : T | undefined
  : never
/**
 * Keys are camelCase as in the declaration; on the command line they are kebab-case. Lists and maps are never
 * undefined.
 */
export type OptionsOf<S extends Spec> = { readonly [K in keyof S]: Value<S[K]> }

function integerOf(raw: string): number {
  if (!/^[+-]?\d+$/.test(raw.trim())) throw new Error('a whole number is expected')
  return Number(raw)
}
function within(
  value: number,
  range: { min?: number; max?: number },
  format: (value: number) => string = String,
): number {
  if (range.min !== undefined && value < range.min) throw new Error(`${format(range.min)} is the least`)
  if (range.max !== undefined && value > range.max) throw new Error(`${format(range.max)} is the most`)
  return value
}

export const opt = {
  string: <const F extends OptionFacts<string>>(facts: F) => ({
    ...facts,
    kind: 'string' as const,
    parse: (raw: string): string => raw,
  }),
  integer: <const F extends OptionFacts<number> & { min?: number; max?: number }>(facts: F) => ({
    ...facts,
    kind: 'integer' as const,
    parse: (raw: string): number => within(integerOf(raw), facts),
  }),
  number: <const F extends OptionFacts<number> & { min?: number; max?: number }>(facts: F) => ({
    ...facts,
    kind: 'number' as const,
    parse: (raw: string): number => {
      if (raw.trim() === '' || !Number.isFinite(Number(raw))) throw new Error('a number is expected')
      return within(Number(raw), facts)
    },
  }),
  flag: <const F extends OptionFacts<boolean>>(facts: F) => ({
    ...facts,
    kind: 'flag' as const,
    values: ['true', 'false'] as const,
    parse: (raw: string): boolean => {
      if (/^(true|yes|on|1)$/i.test(raw)) return true
      if (/^(false|no|off|0)$/i.test(raw)) return false
      throw new Error('true or false is expected')
    },
  }),
  /** Bytes. `bare`: the unit of a number without one, in bytes (the original's CommitFileSize counted KB: 1024). */
  size: <const F extends OptionFacts<number> & { min?: number; max?: number; bareBytes?: number; bare?: string }>(
    facts: F,
  ) => ({
    ...facts,
    kind: 'size' as const,
    parse: (raw: string): number => within(parseSize(raw, facts.bareBytes ?? 1), facts, formatSize),
  }),
  /** Milliseconds. `bareMs`: what a number without unit counts (the original's minutes, seconds, nanoseconds). */
  duration: <const F extends OptionFacts<number> & { min?: number; max?: number; bareMs?: number; bare?: string }>(
    facts: F,
  ) => ({
    ...facts,
    kind: 'duration' as const,
    parse: (raw: string): number => within(parseDuration(raw, facts.bareMs), facts, formatDuration),
  }),
  oneOf: <const V extends readonly string[], const F extends OptionFacts<V[number]>>(values: V, facts: F) => ({
    ...facts,
    kind: 'choice' as const,
    values,
    parse: (raw: string): V[number] => {
      const found = values.find((value) => value.toLowerCase() === raw.toLowerCase())
      if (found === undefined) throw new Error(`one of ${values.join(', ')} is expected`)
      return found
    },
  }),
  /** May be given several times; each value appended. Not split at commas. */
  list: <const F extends Omit<OptionFacts<readonly string[]>, 'default'>>(facts: F) => ({
    ...facts,
    kind: 'list' as const,
    default: [] as readonly string[],
    parse: (raw: string): readonly string[] => [raw],
  }),
  /** `name.KEY=value`: KEY as typed. Values in the order given, several for one KEY allowed. */
  map: <const F extends Omit<OptionFacts<readonly (readonly [string, string])[]>, 'default'>>(facts: F) => ({
    ...facts,
    kind: 'map' as const,
    default: [] as readonly (readonly [string, string])[],
    parse: (raw: string): readonly (readonly [string, string])[] => [['', raw]],
  }),
}

/** A URI as the splitter took it apart. Options of a query that were declared are not in it any more. */
export interface Uri {
  /** Lower case, without the colon. */
  readonly scheme: string
  /** Decoded. */
  readonly user?: string
  readonly password?: string
  /**
   * Several for Kafka and RabbitMQ; empty where the form has no authority (`file:`, `kinesis:`). `host` without
   * brackets for IPv6.
   */
  readonly hosts: readonly {
    readonly host: string
    readonly port?: number /** As typed, while a placeholder stands for it. */
    readonly openPort?: string
  }[]
  /**
   * What follows the authority, or all that follows the scheme where there is none. For `file:` the path or glob as
   * typed.
   */
  readonly path: string
  /** Raw query, only where it is the peer's (ws, wss). */
  readonly query?: string
  /** The whole as typed, less declared query options, password included: for the endpoint, never for people. */
  readonly text: string
}

export interface Given<S extends Spec> {
  readonly options: OptionsOf<S>
  readonly uri: Uri
}
/**
 * What a factory gets. `options` and `uri` are as of the start; `resolve` replaces `{env:…}`, `{file:…}`, `{exec:…}`
 * anew and is to be called in every open.
 */
export interface Target<S extends Spec> extends Given<S> {
  /** The URI without secrets, for messages. */
  readonly label: string
  resolve(): Promise<Given<S>>
}
export type CreateSource<S extends Spec> = (target: Target<S>) => Source
export type CreateSink<S extends Spec> = (target: Target<S>) => Sink

/**
 * Regular files at one end of a flow: those that are there, by device and inode, whatever their names; and where others
 * will be.
 */
export interface Files {
  readonly keys: readonly string[]
  /** Absolute, links resolved. */
  readonly paths: readonly string[]
  /** Of a source: a file of this path would be read. */
  matches?(path: string): boolean
}

export type PositionStorage = 'upstream' | 'here' | 'none'

/** Of an endpoint, however its line is spelled. What is not said is taken as it was given. */
export interface CanonicalForm {
  /** Servers of one cluster, normalised: lines that share one of them mean the same one. */
  readonly servers?: readonly string[]
  /**
   * What is read or written there: topics, a queue, a folder. Their order means nothing. Instead of authority, path and
   * query.
   */
  readonly resources?: readonly string[]
  /** Options by key as they count; undefined: not, for `things` or `members` say it. */
  readonly options?: Readonly<Record<string, string | undefined>>
}

/**
 * What a start line says about an endpoint as it is configured: `resume` how it begins, `drops` what its framing loses.
 */
export interface Endpoint<S extends Spec> {
  /** `defaultPort` by scheme is the endpoint's own matter. */
  readonly schemes: readonly string[]
  /** One line for `manifold endpoints`. */
  readonly summary: string
  /** `s3://BUCKET/FOLDER`. */
  readonly forms: readonly string[]
  /** Whole command lines that work as pasted, one per entry. */
  readonly examples: readonly string[]
  /**
   * hierarchical: authority and path. opaque: everything after `scheme:` is the path. `query: 'peer'`: the query goes
   * to the peer untouched.
   */
  readonly form: 'hierarchical' | 'opaque'
  readonly query?: 'peer'
  /**
   * Hierarchical: an option may name what the host would (`s3: bucket-name=lake`); `check` sees to it that one of them
   * does.
   */
  readonly hostOptional?: true
  readonly options: S
  /** Further checks over several options, before anything is opened: a line for each fault. */
  check?(given: Given<S>, role: Role): readonly string[]
  /** What identity is made of. Options and URI with placeholders as typed: any value may be a text. Must not throw. */
  canonicalForm?(given: Given<S>, role: Role): CanonicalForm
  /**
   * Whether it is certain that what is written to `to` comes to `from`, on servers that both name; `same`: they mean
   * the same thing there. Absent: nobody can tell.
   */
  feeds?(from: Given<S>, to: Given<S>, same: boolean): boolean
  /**
   * The files that it reads or writes: what a flow writes must not be what it reads, nor two of its sources read one.
   */
  files?(given: Given<S>, role: Role): Promise<Files>
  readonly source?: {
    /** Where a position lives: with the server, with us, or nowhere. */
    readonly position: PositionStorage | ((given: Given<S>) => PositionStorage)
    /**
     * It is read by several processes that share the work, or by nobody else ever: such flows take the lowest free
     * instance.
     */
    readonly sharesWork?: true | ((given: Given<S>) => boolean)
    /** Behind a spool it is released at the fsync, not at the delivery (a RabbitMQ queue). */
    readonly releasedAtAccept?: true
    /** It cannot be asked to wait: while the spool is full it is closed and a gap opens. */
    readonly live?: true
    /** It ends by itself. */
    readonly bounded?: true
    load(): Promise<CreateSource<S>>
  }
  readonly sink?: {
    /** A stream that cannot hold keys and headers but as envelopes, or nothing at all. */
    readonly ephemeral?: true
    /**
     * What it leaves out of records that have keys, as it is configured; undefined: nothing. The start line says so.
     */
    drops?(given: Given<S>): string | undefined
    load(): Promise<CreateSink<S>>
  }
}
export function defineEndpoint<const S extends Spec>(endpoint: Endpoint<S>): Endpoint<S> {
  return endpoint
}

// Endpoints of different specs stand side by side; each factory gets back the spec that it declared.
// eslint-disable-next-line @typescript-eslint/no-explicit-any
export type AnyEndpoint = Endpoint<any>
// eslint-disable-next-line @typescript-eslint/no-explicit-any -- as above
export type AnyTarget = Target<any>
// eslint-disable-next-line @typescript-eslint/no-explicit-any -- as above
export type AnyGiven = Given<any>
