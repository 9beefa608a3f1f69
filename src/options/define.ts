/**
 * Defines how an endpoint declares itself and its options. An option exists in its declaration only: parsing, types,
 * defaults, help, reference pages, redaction and completions are made from it.
 */
import type { Sink, Source } from '../core/contract'
import { formatDuration, parseDuration } from '../kit/durations'
import { formatSize, parseSize } from '../kit/sizes'

export type Role = 'source' | 'sink'
export interface OptionFacts<T> {
  /**
   * The help text: full sentences that a reader understands without any other help text. Help and reference pages show
   * it.
   */
  readonly doc: string
  readonly default?: T
  /** The help shows this text instead of the default value. */
  readonly defaultText?: string
  readonly required?: true
  readonly roles?: readonly Role[]
  /** The value is replaced by *** in messages, status and process title. */
  readonly secret?: true
  /** The value is a private key or the name of its file. A value that cannot be the name of a file is secret. */
  readonly privateKey?: true
  /** The option is part of a flow's identity: another value makes another flow. */
  readonly identity?: true
  /**
   * The help shows this in place of the value, such as `HOST:PORT`. If it is absent, the kind of the option decides.
   */
  readonly argument?: string
  /**
   * The option is also known by these names: those of the original program, of other clients and of their configuration
   * files.
   */
  readonly aliases?: readonly string[]
}
/**
 * Help and completions use `kind` and `values`. `parse` gets the text after placeholders were replaced, and throws an
 * Error that says what is allowed.
 */
export interface Option<T> extends OptionFacts<T> {
  readonly kind: 'string' | 'integer' | 'number' | 'flag' | 'size' | 'duration' | 'choice' | 'list' | 'map'
  readonly values?: readonly string[]
  /**
   * Names the unit of a number without unit, for help. If it is absent, such a size counts bytes, and such a duration
   * is refused unless it is 0.
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
/** Keys are camelCase here and kebab-case on the command line. Lists and maps are never undefined. */
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
  /**
   * Parses a size into bytes. `bareBytes` is the unit of a number without unit, and `bare` its name (the original's
   * CommitFileSize counted KB).
   */
  size: <const F extends OptionFacts<number> & { min?: number; max?: number; bareBytes?: number; bare?: string }>(
    facts: F,
  ) => ({
    ...facts,
    kind: 'size' as const,
    parse: (raw: string): number => within(parseSize(raw, facts.bareBytes ?? 1), facts, formatSize),
  }),
  /**
   * Parses a duration into milliseconds. `bareMs` is the unit of a number without unit, and `bare` its name (the
   * original counted minutes, seconds or nanoseconds).
   */
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
  /** A list may be given several times, and each time adds one value. Values are not split at commas. */
  list: <const F extends Omit<OptionFacts<readonly string[]>, 'default'>>(facts: F) => ({
    ...facts,
    kind: 'list' as const,
    default: [] as readonly string[],
    parse: (raw: string): readonly string[] => [raw],
  }),
  /** A map is given as `name.KEY=value`. Its values keep their order, and one KEY may have several. */
  map: <const F extends Omit<OptionFacts<readonly (readonly [string, string])[]>, 'default'>>(facts: F) => ({
    ...facts,
    kind: 'map' as const,
    default: [] as readonly (readonly [string, string])[],
    parse: (raw: string): readonly (readonly [string, string])[] => [['', raw]],
  }),
}

/** A URI after it was split. It no longer contains those options of its query that are declared. */
export interface Uri {
  /** The scheme is in lower case and without the colon. */
  readonly scheme: string
  /** User and password are percent-decoded. */
  readonly user?: string
  readonly password?: string
  /**
   * Kafka and RabbitMQ take several hosts. The list is empty if the form has no authority (`file:`, `kinesis:`). An
   * IPv6 `host` has no brackets.
   */
  readonly hosts: readonly {
    readonly host: string
    readonly port?: number /** The port as typed, while it is a placeholder. */
    readonly openPort?: string
  }[]
  /**
   * The path follows the authority, or the scheme if there is no authority. For `file:` it is the path or glob as
   * typed.
   */
  readonly path: string
  /** The raw query, if it is meant for the peer (ws, wss). */
  readonly query?: string
  /** The whole URI as typed, with its password but without declared query options. It must never be shown. */
  readonly text: string
}

export interface Given<S extends Spec> {
  readonly options: OptionsOf<S>
  readonly uri: Uri
}
/**
 * A factory gets a target. `options` and `uri` are those of the start. `resolve` replaces `{env:…}`, `{file:…}` and
 * `{exec:…}` anew, and every `open` has to call it.
 */
export interface Target<S extends Spec> extends Given<S> {
  /** Messages name the endpoint by its label: the URI without secrets. */
  readonly label: string
  resolve(): Promise<Given<S>>
}
export type CreateSource<S extends Spec> = (target: Target<S>) => Source
export type CreateSink<S extends Spec> = (target: Target<S>) => Sink

/** The regular files at one end of a flow: `keys` are those that exist, `paths` those that will. */
export interface Files {
  readonly keys: readonly string[]
  /** Paths are absolute, and links in them are resolved. */
  readonly paths: readonly string[]
  /** Tells whether a source would read a file of this path. */
  matches?(path: string): boolean
}

export type PositionStorage = 'upstream' | 'here' | 'none'

/** The canonical form of an endpoint is the same however its line is spelled. What it leaves out counts as typed. */
export interface CanonicalForm {
  /** The normalised servers of one cluster. Two lines with one of them in common mean the same cluster. */
  readonly servers?: readonly string[]
  /** The topics, queues or folders that are read or written, in any order. They replace authority, path and query. */
  readonly resources?: readonly string[]
  /**
   * The canonical values of options, by key. undefined means that the option does not count, because `resources` or
   * `servers` contain it.
   */
  readonly options?: Readonly<Record<string, string | undefined>>
}

/** The declaration of an endpoint. */
export interface Endpoint<S extends Spec> {
  /** The default port of each scheme is known to the endpoint alone. */
  readonly schemes: readonly string[]
  /** `manifold endpoints` shows this line. */
  readonly summary: string
  /** The forms of its URI, such as `s3://BUCKET/FOLDER`. */
  readonly forms: readonly string[]
  /** Each example is a whole command line that works as pasted. */
  readonly examples: readonly string[]
  /**
   * A hierarchical URI has authority and path. In an opaque one all that follows the scheme is the path. In the form
   * `path` that is a path of this machine: text without a scheme means it as well, and a `?` begins the query only if
   * the name of an option follows. With `query: 'peer'` the query is sent to the peer unchanged.
   */
  readonly form: 'hierarchical' | 'opaque' | 'path'
  /** The text that stands for the whole URI: `-`. */
  readonly shorthand?: string
  /** Messages use these names in place of the URI. */
  readonly labels?: Readonly<Record<Role, string>>
  readonly query?: 'peer'
  /**
   * An option may name what the host would name (`s3: bucket-name=lake`). `check` then makes sure that one of the two
   * does.
   */
  readonly hostOptional?: true
  readonly options: S
  /** Checks several options together before anything is opened, and returns a line for each fault. */
  check?(given: Given<S>, role: Role): readonly string[]
  /**
   * Returns what the identity is made of. Placeholders stand as typed, so any value may be a string. It must not throw.
   */
  canonicalForm?(given: Given<S>, role: Role): CanonicalForm
  /**
   * Tells whether records written to `to` certainly come back at `from`, on servers that both name. `same` says that
   * both name the same resource. It is absent if that cannot be known.
   */
  loops?(from: Given<S>, to: Given<S>, same: boolean): boolean
  /**
   * Returns the files that the endpoint reads or writes. A flow must not read what it writes, and two of its sources
   * must not read one file.
   */
  files?(given: Given<S>, role: Role): Promise<Files>
  readonly source?: {
    /** Says who keeps a position: `upstream` is the server, `here` is the state of the flow, and `none` is nobody. */
    readonly position: PositionStorage | ((given: Given<S>) => PositionStorage)
    /**
     * Several processes share the work, or no other process can read it at all. Such flows take the lowest free
     * instance.
     */
    readonly sharesWork?: true | ((given: Given<S>) => boolean)
    /**
     * Behind a spool, records are committed once they are on the disk, not once they are delivered (a RabbitMQ queue).
     */
    readonly commitOnceSpooled?: true
    /** The source cannot wait. While the spool is full, the source is closed and a gap opens. */
    readonly live?: true
    /** The source ends by itself. */
    readonly bounded?: true | ((given: Given<S>) => boolean)
    /** A process beside this one writes the input, and sees its end: a shell stops both by SIGINT. */
    readonly fed?: true
    /** Its records have no keys, though a position is kept of them. */
    readonly keyless?: true
    load(): Promise<CreateSource<S>>
  }
  readonly sink?: {
    /** The sink drops all records: as dead letters they are counted alone. */
    readonly discards?: true
    /** The sink is a byte stream of the moment: it holds keys and headers only as envelopes, or nothing at all. */
    readonly ephemeral?: true
    /**
     * Says what the sink, as configured, does not pass on of a record. undefined means that it passes on everything.
     * The start line shows it.
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
