/** What the contract suite needs of an endpoint to try it. Each endpoint has a file in `harnesses/`. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { HeaderValue, Source } from '../../src/core/contract'
import type { AnyEndpoint, AnyTarget } from '../../src/options/define'

/** Takes the server away and brings it back, with what it has stored. */
export interface Outage {
  down(): Promise<void> | void
  up(): Promise<void> | void
}
/** What a record has besides its value. */
export interface Carried {
  readonly key?: Buffer
  readonly headers?: readonly (readonly [name: string, value: HeaderValue])[]
}

export interface SourceHarness {
  readonly target: AnyTarget
  /** The values that the source has to return. */
  readonly expected: readonly string[]
  /** Key and headers that each of the records was put with. Absent: the system has only values. */
  readonly carried?: Carried
  /** Absent: there is no server. */
  readonly outage?: Outage
  /** Adds records behind those that are there. Sources whose position is kept upstream need it. */
  readonly more?: (values: readonly string[]) => Promise<void>
  /** Makes the source where the endpoint's own would use a descriptor of this process. */
  readonly makeSource?: () => Source
  stop(): Promise<void>
}
export interface SinkHarness {
  readonly target: AnyTarget
  /** All values that are there, once there are so many. Absent: nothing can be looked at. */
  readonly stored?: (count: number) => Promise<readonly string[]>
  /** Keys and headers of the records that are there, once so many are. Absent: the system has only values. */
  readonly storedCarried?: (count: number) => Promise<readonly Carried[]>
  readonly outage?: Outage
  /** Keeps the server's answers back, while it takes what is written. Absent: nothing answers. */
  readonly answers?: { hold(): void; release(): void }
  /** Bytes of a record that the destination does not take. Absent: it takes any. */
  readonly tooLarge?: number
  stop(): Promise<void>
}

/** Abilities that a case may need, each with the reason for which it is skipped where one is lacking. */
export const ABILITIES = {
  end: 'it has no end',
  ends: 'it has no ends to ask for, or ends by itself',
  here: 'its position does not live with us',
  upstream: 'its position is not kept upstream',
  shared: 'two of it do not share records',
  carries: 'its records are values alone',
  outage: 'it has no server that could be taken away here',
  answers: 'no answer of its destination can be kept back here',
  refuses: 'its destination takes any record',
} as const
export type Ability = keyof typeof ABILITIES

/** Text in place of `start` says why the endpoint is not tried here, and where it is tried instead. */
export interface Role<H, A extends readonly unknown[]> {
  readonly start: ((endpoint: AnyEndpoint, ...rest: A) => Promise<H>) | string
  readonly can?: readonly Ability[]
}
export interface Harness {
  /** `records` are the values that are to be there. */
  readonly source?: Role<SourceHarness, [records: readonly string[]]>
  readonly sink?: Role<SinkHarness, []>
}

export async function inFolder<T>(make: (folder: string, stop: () => Promise<void>) => Promise<T>): Promise<T> {
  const folder = mkdtempSync(join(tmpdir(), 'manifold-contract-'))
  return make(folder, () => {
    rmSync(folder, { recursive: true, force: true })
    return Promise.resolve()
  })
}

/** One server for all cases of a file: a start takes seconds. */
export function lazily<T>(start: () => Promise<T>, stop: (made: T) => Promise<void>): () => Promise<T> {
  let made: Promise<T> | undefined
  afterAll(async () => {
    if (made !== undefined) await stop(await made)
  }, 30_000)
  return () => (made ??= start())
}

/** Returns undefined where the service is there or demanded, otherwise the reason of a skip. */
export function missing(isThere: boolean, name: string, service: string): string | undefined {
  return isThere || process.env['MANIFOLD_REQUIRE_SERVICES'] === '1'
    ? undefined
    : `no ${name} here: node scripts/services.js install --need ${service}`
}
