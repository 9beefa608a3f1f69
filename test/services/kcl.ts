/**
 * Workers of the Kinesis Client Library for tests: each a process that tells what it is given
 * (scripts/services/kcl/Worker.java).
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { command, type Kind } from '../../scripts/services/kcl'
import type { AwsServer } from './kinesis'

export { available, type Kind } from '../../scripts/services/kcl'

export interface Told {
  /** Epoch milliseconds. */
  readonly at: number
  readonly what:
    | 'begin'
    | 'record'
    | 'checkpoint'
    | 'end'
    | 'lost'
    | 'stop'
    | 'too late'
    | 'stopped'
    | 'not stopped in order'
  readonly shard: string
  readonly sequence: string
  readonly sub: number
  readonly text: string
}
export interface WorkerOptions {
  readonly kind?: Kind
  readonly name: string
  readonly stream: string
  readonly table: string
  readonly kinesis: AwsServer
  readonly tables: AwsServer
  readonly failoverMs: number
  /** each: after every batch, and in an orderly stop. marked: where a record ends in '!', and nowhere else. */
  readonly checkpoint: 'each' | 'marked'
  /** The table's first leases are made at once, as the library makes them, which else waits up to 30 s with that. */
  readonly make?: boolean
  /** maxLeasesToStealAtOneTime. */
  readonly steal?: number
}
export interface Worker {
  readonly name: string
  /** So far. */
  readonly told: readonly Told[]
  /** Its log, for messages. */
  stderr(): string
  /** In order. Rejects where it was not. */
  stop(): Promise<void>
  kill(): Promise<void>
}

export function startWorker({
  kind = 'kcl-2',
  name,
  stream,
  table,
  kinesis,
  tables,
  failoverMs,
  checkpoint,
  make = false,
  steal = 1,
}: WorkerOptions): Worker {
  const [file, args] = command(kind, {
    name,
    stream,
    table,
    kinesis: kinesis.endpoint,
    dynamodb: tables.endpoint,
    failover: String(failoverMs),
    checkpoint,
    make: make ? 'yes' : 'no',
    steal: String(steal),
  })
  const child = spawn(file, args, {
    stdio: 'pipe',
    env: {
      ...process.env,
      JAVA_TOOL_OPTIONS: '',
      AWS_ACCESS_KEY_ID: kinesis.accessKey,
      AWS_SECRET_ACCESS_KEY: kinesis.secretKey,
    },
  })
  const told: Told[] = []
  let err = ''
  let rest = ''
  child.stdout.on('data', (chunk: Buffer) => {
    const lines = `${rest}${chunk.toString()}`.split('\n')
    rest = lines.pop() ?? ''
    for (const line of lines) {
      const [what = '', shard = '', sequence = '', sub = '0', text = ''] = line.split('\t')
      told.push({ at: Date.now(), what: what as Told['what'], shard, sequence, sub: Number(sub), text })
    }
  })
  child.stderr.on('data', (chunk: Buffer) => {
    err += chunk.toString()
  })
  // It may be gone before it is told to go.
  child.stdin.on('error', () => undefined)
  const done = once(child, 'close')
  return {
    name,
    told,
    stderr: () => err,
    stop: async () => {
      child.stdin.end()
      await done
      if (child.exitCode !== 0)
        throw new Error(
          `the worker ${name} did not stop in order (${child.exitCode ?? child.signalCode ?? ''}): ${err.slice(-2000)}`,
        )
    },
    kill: async () => {
      child.kill('SIGKILL')
      await done
    },
  }
}
