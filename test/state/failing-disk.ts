/**
 * A file system in memory that loses power: what was not synced survives in any mixture (sectors of 512 bytes torn from
 * writes, lengths, names), what was synced survives whole. One folder deep, which is all the flow file needs.
 */
import type { File, FileSystem } from '../../src/kit/file-system'

const SECTOR = 512
class Inode {
  /** As a reader sees it now, and as it would be after a power cut. */
  now: Buffer = Buffer.alloc(0)
  durable: Buffer = Buffer.alloc(0)
}
type Step = 'open' | 'write' | 'datasync' | 'rename' | 'unlink' | 'syncDirectory'

export class FailingDisk implements FileSystem {
  private names = new Map<string, Inode>()
  private durableNames = new Map<string, Inode>()
  private state: number
  private stepsLeft = Infinity
  private life = 0
  private failing: { step: Step; code: string; times: number } | undefined
  crashed = false
  full = false
  created = 0

  constructor(seed: number) {
    this.state = seed | 1
  }

  failNext(step: Step, code: string, times = 1): void {
    this.failing = { step, code, times }
  }
  crashAfter(steps: number): void {
    this.stepsLeft = steps
  }

  /** Power is back: only what is durable, or happened to get there, is left. */
  restart(): void {
    const survivors = new Set([...this.names.values(), ...this.durableNames.values()])
    for (const inode of survivors) inode.now = inode.durable = this.mixture(inode.durable, inode.now)
    // Names not synced: the folder is as it was, or as it is now.
    if (this.random() < 0.5) this.names = new Map(this.durableNames)
    else this.durableNames = new Map(this.names)
    this.stepsLeft = Infinity
    this.crashed = false
    this.life++
  }

  open(path: string, how: 'create' | 'update' | 'read'): Promise<File> {
    return this.step('open', () => {
      const known = this.names.get(path)
      if (how === 'create') {
        if (known !== undefined) throw errno('EEXIST')
        const inode = new Inode()
        this.names.set(path, inode)
        this.created++
        return this.handle(inode)
      }
      if (known === undefined) throw errno('ENOENT')
      return this.handle(known)
    })
  }

  makeDirectory(): Promise<void> {
    return Promise.resolve()
  }
  list(path: string): Promise<readonly string[]> {
    return Promise.resolve(
      [...this.names.keys()].filter((name) => name.startsWith(`${path}/`)).map((name) => name.slice(path.length + 1)),
    )
  }

  rename(from: string, to: string): Promise<void> {
    return this.step('rename', () => {
      const inode = this.names.get(from)
      if (inode === undefined) throw errno('ENOENT')
      this.names.delete(from)
      this.names.set(to, inode)
    })
  }

  unlink(path: string): Promise<void> {
    return this.step('unlink', () => {
      if (!this.names.delete(path)) throw errno('ENOENT')
    })
  }
  syncDirectory(): Promise<void> {
    return this.step('syncDirectory', () => {
      this.durableNames = new Map(this.names)
    })
  }
  space(): Promise<{ free: number; total: number }> {
    return Promise.resolve({ free: 1e9, total: 1e9 })
  }

  private handle(inode: Inode): File {
    const life = this.life
    let broken = false
    const alive = (): void => {
      if (life !== this.life) throw new Error('a descriptor of an earlier life is used')
      if (broken) throw new Error('a descriptor is used again after its fdatasync failed')
    }
    return {
      write: (buffers, offset) => {
        const bytes = Buffer.concat(buffers)
        return this.step(
          'write',
          () => {
            alive()
            if (this.full && offset + bytes.length > inode.now.length) throw errno('ENOSPC')
            inode.now = overwritten(inode.now, bytes, offset)
          },
          () => {
            inode.now = overwritten(inode.now, bytes.subarray(0, Math.floor(this.random() * bytes.length)), offset)
          },
        )
      },
      read: (into, offset) => {
        alive()
        return Promise.resolve(inode.now.copy(into, 0, offset))
      },
      datasync: () => {
        const done = this.step('datasync', () => {
          alive()
          inode.durable = Buffer.from(inode.now)
        })
        done.catch(() => {
          broken = true
        })
        return done
      },
      truncate: (length) => {
        inode.now = Buffer.from(inode.now.subarray(0, length))
        return Promise.resolve()
      },
      size: () => Promise.resolve(inode.now.length),
      close: () => Promise.resolve(),
    }
  }

  private async step<R>(step: Step, run: () => R, partly?: () => void): Promise<R> {
    // Other work comes between any two system calls.
    await Promise.resolve()
    if (this.crashed) throw new Error('power is off')
    if (this.stepsLeft-- <= 0) {
      partly?.()
      this.crashed = true
      throw new Error('power is lost')
    }
    if (this.failing?.step === step && this.failing.times-- > 0) throw errno(this.failing.code)
    return run()
  }

  /** Sector by sector one or the other; the length one or the other; what lies between is zeros. */
  private mixture(old: Buffer, now: Buffer): Buffer {
    const length = this.random() < 0.5 ? old.length : now.length
    const mixed = Buffer.alloc(length)
    const choice = this.random()
    for (let at = 0; at < length; at += SECTOR) {
      const from = this.random() < choice ? old : now
      from.subarray(at, Math.min(at + SECTOR, length)).copy(mixed, at)
    }
    return mixed
  }

  private random(): number {
    // xorshift32: the same history for the same seed.
    this.state ^= this.state << 13
    this.state ^= this.state >>> 17
    this.state ^= this.state << 5
    return (this.state >>> 0) / 2 ** 32
  }
}

function overwritten(old: Buffer, bytes: Buffer, offset: number): Buffer {
  const now = Buffer.alloc(Math.max(old.length, offset + bytes.length))
  old.copy(now)
  bytes.copy(now, offset)
  return now
}
function errno(code: string): Error {
  return Object.assign(new Error(code), { code })
}
