/**
 * The promises of `src/core/contract.ts` as cases that any endpoint can be put through. A case is a plain function: it
 * throws an error that names the broken promise, waits for nothing without a limit, and leaves closing to its runner.
 */
import type { Sink, Source } from '../../src/core/contract'
import { isSystemError, ManifoldError } from '../../src/core/errors'
import { until } from '../support/until'
import type { Ability, Carried } from './harness'

/** Longer than any endpoint needs for one step on a busy machine. */
const LIMIT_MS = 15_000
export const forever = new AbortController().signal

export function demand(condition: boolean, promise: string): asserts condition {
  if (!condition) throw new Error(promise)
}

/** @param what completes `… within N s` */
export async function within<T>(promise: Promise<T>, what: string, limitMs = LIMIT_MS): Promise<T> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(() => {
      reject(new Error(`${what} within ${limitMs / 1000} s`))
    }, limitMs)
  })
  try {
    return await Promise.race([promise, late])
  } finally {
    clearTimeout(timer)
  }
}

/** Compares the values of records, and says where they differ first. */
export function demandRecords(found: readonly string[], expected: readonly string[], promise: string): void {
  const index = expected.findIndex((value, at) => found[at] !== value)
  if (index === -1 && found.length === expected.length) return
  const at = index === -1 ? expected.length : index
  throw new Error(
    `${promise}: ${found.length} of ${expected.length} came; record ${at + 1} is ${found[at] ?? 'missing'} where ${expected[at] ?? 'nothing'} is expected`,
  )
}

export function demandCarried(found: Carried, expected: Carried, where: string): void {
  const text = (value: unknown): string => (Buffer.isBuffer(value) ? value.toString() : String(value))
  demand(
    expected.key === undefined || text(found.key) === text(expected.key),
    `${where} lost the key of a record: ${text(found.key)}`,
  )
  for (const [name, value] of expected.headers ?? []) {
    const header = found.headers?.find(([other]) => other === name)
    demand(
      header !== undefined && text(header[1]) === text(value),
      `${where} lost the header ${name} of a record: ${header === undefined ? 'it is missing' : text(header[1])}`,
    )
  }
}

/** An endpoint of one harness, and whatever a case has opened of it. */
export interface Subject<T, H> {
  readonly harness: H
  /** Milliseconds that one step may take. */
  readonly limitMs: number
  /** Makes another object of the endpoint; the runner closes it. */
  create(): Promise<T>
}
export interface Case<S> {
  readonly title: string
  /** The case applies to endpoints with this ability. */
  readonly needs?: Ability
  run(subject: S): Promise<void>
}

/** A fault of the network has to be one that the core knows what to do with. */
export function demandClassified(error: unknown, when: string): void {
  demand(
    error instanceof ManifoldError || isSystemError(error),
    `${when} the endpoint threw ${error instanceof Error ? `${error.name}: ${error.message}` : String(error)}, which the core takes for a bug: classify it (src/core/errors.ts)`,
  )
}
export async function failureOf(promise: Promise<unknown>): Promise<unknown> {
  return promise.then(
    () => undefined,
    (error: unknown) => error ?? new Error('undefined'),
  )
}

/** Connections and files of this process, by kind. */
export function resources(): ReadonlyMap<string, number> {
  const counted = new Map<string, number>()
  for (const kind of process.getActiveResourcesInfo())
    if (/TCPSocket|TLS|Pipe|FSEvent|StatWatcher/.test(kind)) counted.set(kind, (counted.get(kind) ?? 0) + 1)
  return counted
}
export async function demandReleased(before: ReadonlyMap<string, number>): Promise<void> {
  const left = (): string[] =>
    [...resources()].filter(([kind, count]) => count > (before.get(kind) ?? 0)).map(([kind]) => kind)
  await until(() => left().length === 0, 'close left something open', { limitMs: 5000, seen: left })
}

/**
 * Runs a case, and closes whatever it has opened, also where it failed.
 * @param options `mutate` changes each object of the endpoint, to see whether the case notices; then a shorter limit
 *   saves time
 */
export async function runCase<T extends Source | Sink, H extends { stop(): Promise<void> }>(
  { run }: Case<Subject<T, H>>,
  subject: Omit<Subject<T, H>, 'create' | 'limitMs'> & { make(): Promise<T> },
  { mutate = (made) => made, limitMs = LIMIT_MS }: { mutate?(made: T): T; readonly limitMs?: number } = {},
): Promise<void> {
  const opened: T[] = []
  try {
    await run({
      ...subject,
      limitMs,
      create: async () => {
        const made = await subject.make()
        opened.push(made)
        return mutate(made)
      },
    })
  } finally {
    for (const each of opened) await within(each.close(), 'close did not return').catch(() => undefined)
    await subject.harness.stop()
  }
}
