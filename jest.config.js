/** Tests run the sources through swc; servers and the built program come from test/services (see its header). */
module.exports = {
  testEnvironment: 'node',
  rootDir: __dirname,
  testMatch: ['<rootDir>/test/**/*.test.ts'],
  transform: {
    '\\.(t|j)s$': [
      '@swc/jest',
      {
        jsc: { parser: { syntax: 'typescript' }, target: 'es2023' },
        module: { type: 'commonjs' },
        sourceMaps: 'inline',
      },
    ],
  },
  // Lazy loads name the built file.
  moduleNameMapper: { '^(\\.{1,2}/.*)\\.js$': '$1' },
  // ESM-only packages that swc has to turn into CommonJS for jest's module loader.
  transformIgnorePatterns: ['/node_modules/(?!(commander|@platformatic)/)'],
  setupFiles: ['<rootDir>/test/support/node-errors.ts'],
  testTimeout: 30_000,
  // Servers, subprocesses and disks: two at a time is what two cores carry.
  maxWorkers: 2,
}
