export interface Process {
  readonly port: number
  readonly ports: readonly number[]
  readonly dir: string
  readonly log: string
  readonly pid: number | undefined
  kill(): Promise<void>
  freeze(): void
  thaw(): void
  restart(): Promise<void>
  stop(): Promise<void>
}
/** Chooses a port on which nobody listens; it stays reserved for this process until it is released. */
export function freePort(): Promise<number>
export function release(ports: readonly number[]): void
export function startProcess(what: {
  readonly name: string
  command(
    port: number,
    dir: string,
    ports: readonly number[],
  ): { readonly file: string; readonly args: readonly string[]; readonly env?: object }
  ready(port: number): Promise<boolean>
  gone?(): void
}): Promise<Process>
