/** Reads the values of placeholders. Each request reads them anew, so that tokens can rotate. */
import { spawn } from 'node:child_process'
import { open } from 'node:fs/promises'
import { join } from 'node:path'
import { lineOf } from '../core/errors'
import { displayPlaceholder, type Placeholder } from './template'

const EXEC_TIMEOUT_MS = 10_000
/** A secret is short. The limit keeps a device or a log that was named by mistake from being read to its end. */
const MAX_BYTES = 1024 * 1024

export type Environment = Readonly<Record<string, string | undefined>>

/**
 * Removes one final newline from the values of `{file:…}` and `{exec:…}`.
 * @throws an Error that names the placeholder and no value
 */
export async function valueOf(placeholder: Placeholder, env: Environment): Promise<string> {
  switch (placeholder.kind) {
    case 'env': {
      const value = env[placeholder.argument]
      if (value === undefined)
        throw new Error(`${displayPlaceholder(placeholder)}: this environment variable is not set`)
      return value
    }
    case 'file':
      return withoutNewline(await fileText(placeholder, env))
    case 'exec':
      return withoutNewline(await commandOutput(placeholder, env))
  }
}

function withoutNewline(text: string): string {
  return text.replace(/\r?\n$/, '')
}

async function fileText(placeholder: Placeholder, env: Environment): Promise<string> {
  let path = placeholder.argument
  if (path.startsWith('%d/')) {
    const directory = env.CREDENTIALS_DIRECTORY
    if (directory === undefined || directory === '')
      throw new Error(
        `${displayPlaceholder(placeholder)}: CREDENTIALS_DIRECTORY is not set; in a systemd unit, LoadCredential= sets it`,
      )
    path = join(directory, path.slice(3))
  }
  try {
    const handle = await open(path, 'r')
    try {
      const parts: Buffer[] = []
      let length = 0
      for (;;) {
        const { bytesRead, buffer } = await handle.read(Buffer.allocUnsafe(64 * 1024), 0, 64 * 1024, null)
        if (bytesRead === 0) break
        length += bytesRead
        if (length > MAX_BYTES) throw new Error('it is longer than 1 MiB')
        parts.push(buffer.subarray(0, bytesRead))
      }
      return Buffer.concat(parts).toString('utf8')
    } finally {
      await handle.close()
    }
  } catch (error) {
    throw new Error(`${displayPlaceholder(placeholder)}: ${unreadable(error as NodeJS.ErrnoException)}`, {
      cause: error,
    })
  }
}

function unreadable(error: NodeJS.ErrnoException): string {
  if (error.code === 'ENOENT') return 'there is no such file'
  return error.code === 'EACCES' ? 'this user may not read the file' : lineOf(error)
}

async function commandOutput(placeholder: Placeholder, env: Environment): Promise<string> {
  // The command gets a process group of its own, so that all that it started ends with it.
  const child = spawn('sh', ['-c', placeholder.argument], { env, stdio: ['ignore', 'pipe', 'pipe'], detached: true })
  const endGroup = (): void => {
    try {
      if (child.pid !== undefined) process.kill(-child.pid, 'SIGKILL')
    } catch {
      /* it has ended already */
    }
  }
  return new Promise((resolve, reject) => {
    const out: Buffer[] = []
    let length = 0
    let complaint = ''
    const fail = (why: string): void => {
      clearTimeout(timer)
      endGroup()
      child.stdout.destroy()
      child.stderr.destroy()
      reject(new Error(`${displayPlaceholder(placeholder)}: ${why}`))
    }
    const timer = setTimeout(() => {
      fail('the command did not end within 10 s')
    }, EXEC_TIMEOUT_MS)
    child.stdout.on('data', (chunk: Buffer) => {
      length += chunk.length
      out.push(chunk)
      if (length > MAX_BYTES) fail('the command wrote more than 1 MiB')
    })
    child.stderr.on('data', (chunk: Buffer) => {
      if (complaint.length < 1000) complaint += chunk.toString('utf8')
    })
    child.once('error', (error) => {
      fail(lineOf(error))
    })
    child.once('close', (code, signal) => {
      clearTimeout(timer)
      if (code === 0) {
        resolve(Buffer.concat(out).toString('utf8'))
        return
      }
      fail(`the command ended with ${signal ?? `code ${code}`}${reasonOf(complaint)}`)
    })
  })
}

/**
 * A command that prints a secret may also complain with it. So only well-known words of its complaint are passed on.
 */
const KNOWN_REASONS = new RegExp(
  [
    'command not found',
    'not found',
    'no such file or directory',
    'permission denied',
    'connection refused',
    'connection timed out',
    'timed out',
    'could not resolve host',
    'no route to host',
    'network is unreachable',
    'unauthorized',
    'forbidden',
    'access ?denied',
    'expired',
    'syntax error',
  ].join('|'),
  'i',
)
function reasonOf(complaint: string): string {
  if (complaint.trim() === '') return ''
  const known = KNOWN_REASONS.exec(complaint)?.[0]
  return known === undefined
    ? '; what it printed may hold a secret and is not shown: run it by hand to read it'
    : `: ${known.toLowerCase()}`
}
