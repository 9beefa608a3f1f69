/**
 * A disk in memory that loses what a real one may lose. Each file knows its bytes as the running system sees them, what
 * of them an fdatasync made durable, and the writes since. A power cut keeps any mix: whole writes, prefixes of them,
 * single pages of some; the length may survive without the data (NULs). Names live in the directory only after its
 * fsync; before, each creation, unlink and rename may or may not survive. A kill keeps all. An fdatasync that fails
 * behaves as on Linux: the pages count as clean although they may not be on disk, and a later fdatasync does not write
 * them.
 */
import type { File, FileSystem } from '../../src/kit/file-system'
import type { Random } from './random'

type Op =
  | { readonly kind: 'write'; readonly at: number; readonly data: Buffer }
  | { readonly kind: 'truncate'; readonly length: number }
interface Inode {
  current: Buffer
  durable: Buffer
  pending: Op[]
}
/** Name to file, or to nothing (unlinked). */
type NameOp = ReadonlyMap<string, Inode | undefined>

export class Crashed extends Error {}

function failure(code: string, what: string): NodeJS.ErrnoException {
  return Object.assign(new Error(`${code}: ${what}`), { code })
}

function applied(to: Buffer, op: Op): Buffer {
  if (op.kind === 'truncate')
    return op.length <= to.length
      ? Buffer.from(to.subarray(0, op.length))
      : Buffer.concat([to, Buffer.alloc(op.length - to.length)])
  const end = op.at + op.data.length
  let out = to
  if (end > to.length) {
    out = Buffer.alloc(end)
    to.copy(out)
  }
  op.data.copy(out, op.at)
  return out
}

/** The disk, over any number of boots of the machine. */
export class CrashDisk {
  private names = new Map<string, Inode>()
  private durableNames = new Map<string, Inode>()
  private pendingNames: NameOp[] = []
  private generation = 0
  /** Bytes that fit in all. */
  capacity = Infinity
  /** The machine stops in the middle of the n-th call from now. */
  crashIn = Infinity
  /** Called once when it does. */
  onCrash: () => void = () => undefined
  /** So many of the next calls fail with EIO. */
  failSyncs = 0
  failWrites = 0

  constructor(private readonly random: Random) {}

  /** The file system as one process sees it, until the next crash. */
  boot(): FileSystem {
    const generation = this.generation
    const turn = async (): Promise<boolean> => {
      for (let wait = this.random.below(3); wait > 0; wait--) await Promise.resolve()
      if (generation !== this.generation) throw new Crashed('this process is dead')
      this.crashIn--
      return this.crashIn <= 0
    }
    const die = (): never => {
      this.generation++
      this.crashIn = Infinity
      this.onCrash()
      throw new Crashed('the machine stopped')
    }
    /** Runs a call that either happens or does not when the machine stops in it. */
    const call = async <T>(run: () => T): Promise<T> => {
      const dying = await turn()
      if (dying && this.random.chance(0.5)) die()
      const result = run()
      if (dying) die()
      return result
    }
    const file = (inode: Inode): File => {
      let open = true
      const check = (): void => {
        if (!open) throw failure('EBADF', 'closed')
      }
      return {
        write: async (buffers, offset) => {
          const dying = await turn()
          check()
          const data = Buffer.concat(buffers)
          if (this.failWrites > 0) {
            this.failWrites--
            this.put(inode, offset, data.subarray(0, this.random.below(data.length + 1)))
            throw failure('EIO', 'write')
          }
          const growth = Math.max(0, offset + data.length - inode.current.length)
          const room = this.capacity - this.used()
          const taken = dying
            ? this.random.below(data.length + 1)
            : growth > room
              ? Math.max(0, data.length - (growth - Math.max(0, room)))
              : data.length
          this.put(inode, offset, data.subarray(0, taken))
          if (dying) die()
          if (taken < data.length) throw failure('ENOSPC', 'write')
        },
        read: (into, offset) =>
          call(() => {
            check()
            return offset >= inode.current.length ? 0 : inode.current.copy(into, 0, offset)
          }),
        datasync: () =>
          call(() => {
            check()
            if (this.failSyncs > 0) {
              this.failSyncs--
              inode.durable = this.mixed(inode)
              inode.pending = []
              throw failure('EIO', 'fdatasync')
            }
            this.sync(inode)
          }),
        truncate: (length) =>
          call(() => {
            check()
            inode.current = applied(inode.current, { kind: 'truncate', length })
            inode.pending.push({ kind: 'truncate', length })
          }),
        size: () => call(() => inode.current.length),
        close: async () => {
          open = false
        },
      }
    }
    return {
      open: (path, how) =>
        call(() => {
          const there = this.names.get(path)
          if (how === 'create') {
            if (there !== undefined) throw failure('EEXIST', path)
            if (this.used() + 1 > this.capacity) throw failure('ENOSPC', path)
            const inode = { current: Buffer.alloc(0), durable: Buffer.alloc(0), pending: [] }
            this.change(new Map([[path, inode]]))
            return file(inode)
          }
          if (there === undefined) throw failure('ENOENT', path)
          return file(there)
        }),
      makeDirectory: () => call(() => undefined),
      list: (path) =>
        call(() =>
          [...this.names.keys()]
            .filter((name) => name.startsWith(`${path}/`))
            .map((name) => name.slice(path.length + 1)),
        ),
      rename: (from, to) =>
        call(() => {
          const inode = this.names.get(from)
          if (inode === undefined) throw failure('ENOENT', from)
          this.change(
            new Map<string, Inode | undefined>([
              [to, inode],
              [from, undefined],
            ]),
          )
        }),
      unlink: (path) =>
        call(() => {
          if (!this.names.has(path)) throw failure('ENOENT', path)
          this.change(new Map([[path, undefined]]))
        }),
      syncDirectory: () =>
        call(() => {
          this.durableNames = new Map(this.names)
          this.pendingNames = []
        }),
      space: () => call(() => ({ free: Math.max(0, this.capacity - this.used()), total: this.capacity })),
    }
  }

  /** kill -9: what was written is there, synced or not. */
  kill(): FileSystem {
    this.generation++
    this.crashIn = Infinity
    return this.boot()
  }

  powerCut(): FileSystem {
    this.generation++
    this.crashIn = Infinity
    const inOrder = this.random.chance(0.5)
    const upTo = this.random.below(this.pendingNames.length + 1)
    this.pendingNames.forEach((op, index) => {
      if (inOrder ? index < upTo : this.random.chance(0.5))
        for (const [name, inode] of op) setName(this.durableNames, name, inode)
    })
    this.names = new Map(this.durableNames)
    this.pendingNames = []
    for (const inode of new Set(this.names.values())) {
      inode.durable = this.mixed(inode)
      inode.current = Buffer.from(inode.durable)
      inode.pending = []
    }
    return this.boot()
  }

  /** As the running system sees it. */
  contents(): ReadonlyMap<string, Buffer> {
    return new Map([...this.names].map(([name, inode]) => [name, Buffer.from(inode.current)]))
  }
  /** Puts a file there, durable. */
  plant(path: string, bytes: Buffer): void {
    const inode = { current: Buffer.from(bytes), durable: Buffer.from(bytes), pending: [] }
    this.names.set(path, inode)
    this.durableNames.set(path, inode)
  }
  remove(path: string): void {
    this.names.delete(path)
    this.durableNames.delete(path)
  }
  used(): number {
    let used = 0
    for (const inode of this.names.values()) used += inode.current.length
    return used
  }

  private put(inode: Inode, at: number, data: Buffer): void {
    if (data.length === 0) return
    const op: Op = { kind: 'write', at, data: Buffer.from(data) }
    inode.current = applied(inode.current, op)
    inode.pending.push(op)
  }
  private sync(inode: Inode): void {
    for (const op of inode.pending) inode.durable = applied(inode.durable, op)
    inode.pending = []
  }
  private change(op: NameOp): void {
    for (const [name, inode] of op) setName(this.names, name, inode)
    this.pendingNames.push(op)
  }

  /** The durable bytes and some of what was written since. */
  private mixed(inode: Inode): Buffer {
    const { random } = this
    if (inode.pending.length === 0) return inode.durable
    const versions: Buffer[] = [Buffer.from(inode.durable)]
    for (const op of inode.pending) versions.push(applied(Buffer.from(versions.at(-1) ?? Buffer.alloc(0)), op))
    const newest = versions.at(-1) ?? inode.durable
    switch (random.below(4)) {
      case 0:
        return newest
      case 1:
        return versions[random.below(versions.length)] ?? newest
      case 2: {
        // The writes up to one, and a prefix of that.
        const index = random.below(inode.pending.length)
        const op = inode.pending[index]
        const before = Buffer.from(versions[index] ?? Buffer.alloc(0))
        return op === undefined
          ? newest
          : applied(
              before,
              op.kind === 'truncate' ? op : { ...op, data: op.data.subarray(0, random.below(op.data.length + 1)) },
            )
      }
      default: {
        // Page by page one state or another, and a length of its own.
        const page = random.pick([16, 64, 512, 4096])
        const out = Buffer.alloc(random.pick(versions).length)
        for (let at = 0; at < out.length; at += page) {
          const version = random.pick(versions)
          if (at < version.length) version.copy(out, at, at, Math.min(at + page, out.length))
        }
        return out
      }
    }
  }
}

function setName(names: Map<string, Inode>, name: string, inode: Inode | undefined): void {
  if (inode === undefined) names.delete(name)
  else names.set(name, inode)
}
