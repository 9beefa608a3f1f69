import { BufferPool } from '../../../src/endpoints/s3/buffer-pool'

const MIB = 1024 * 1024
const never = new AbortController().signal
const settled = async (promise: Promise<unknown>): Promise<boolean> => {
  let done = false
  promise.then(
    () => {
      done = true
    },
    () => {
      done = true
    },
  )
  await new Promise((resolve) => setImmediate(resolve))
  return done
}

describe('the buffers of uploads', () => {
  it('are at least as large as asked, and used again', async () => {
    const pool = new BufferPool(8 * MIB)
    const first = await pool.take(3 * MIB - 5, never)
    expect(first.length).toBe(3 * MIB)
    pool.release(first)
    expect(await pool.take(3 * MIB, never)).toBe(first)
  })
  it('are never more than the capacity: who asks for more waits, and is served in turn', async () => {
    const pool = new BufferPool(8 * MIB)
    const [a, b] = [await pool.take(4 * MIB, never), await pool.take(4 * MIB, never)]
    const large = pool.take(6 * MIB, never)
    const small = pool.take(1, never)
    expect([await settled(large), await settled(small)]).toEqual([false, false])
    pool.release(a)
    expect([await settled(large), await settled(small)]).toEqual([false, false])
    pool.release(b)
    expect((await large).length).toBe(6 * MIB)
    expect((await small).length).toBe(MIB)
  })
  it('let one larger than all of it through when nothing else is out', async () => {
    const pool = new BufferPool(8 * MIB)
    const held = await pool.take(1, never)
    const huge = pool.take(20 * MIB, never)
    expect(await settled(huge)).toBe(false)
    pool.release(held)
    const given = await huge
    expect(given.length).toBe(20 * MIB)
    const next = pool.take(1, never)
    expect(await settled(next)).toBe(false)
    pool.release(given)
    expect((await next).length).toBe(MIB)
  })
  it('are not waited for any more once the signal aborts, and whoever comes after goes on', async () => {
    const pool = new BufferPool(4 * MIB)
    const held = await pool.take(2 * MIB, never)
    const abort = new AbortController()
    const large = pool.take(4 * MIB, abort.signal)
    const small = pool.take(MIB, never)
    expect(await settled(small)).toBe(false)
    abort.abort(new Error('enough'))
    await expect(large).rejects.toThrow('enough')
    expect((await small).length).toBe(MIB)
    await expect(pool.take(1, abort.signal)).rejects.toThrow('enough')
    pool.release(held)
  })
})
