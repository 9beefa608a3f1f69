/**
 * jest runs tests in a realm of their own: an error that Node itself makes (ECONNREFUSED) is no `instanceof Error`
 * there, and the AWS SDK wraps what is none, losing its code. Outside jest there is one realm; importing this file
 * makes it so for `instanceof Error` here.
 */
Object.defineProperty(Error, Symbol.hasInstance, {
  value(this: unknown, value: unknown): boolean {
    return (
      Function.prototype[Symbol.hasInstance].call(this as () => void, value) ||
      (this === Error && Object.prototype.toString.call(value) === '[object Error]')
    )
  },
})
